// The last seconds as a ribbon that moves left: level, and over it what was heard in it.

import { kind, shorter } from "./words.js";

const FLOOR_DBFS = -60;
const CEILING_DBFS = -8;
const WORDS_PX = 26;
const AXIS_PX = 18;
const BAR_SHARE = 0.7;
const KEPT_S = 120;
const FRAME_MS = 1000 / 24;
const STILL_FRAME_MS = 1000;
const STEP_S = 0.1;
const EDGE_PX = 40;

export class Ribbon {
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.reset([]);
    const redraw = () => this.#restyle();
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      matchMedia(query).addEventListener("change", redraw);
    }
    new ResizeObserver(redraw).observe(canvas);
  }

  /** Starts again at 0 s, for a model's labels. */
  reset(labels) {
    this.labels = labels;
    this.levels = [];
    this.spans = new Map();
    this.atS = 0;
    this.arrivedMs = null;
    this.open = null;
    this.#restyle();
  }

  /** Takes a level: `atS` seconds on the stream's clock, and decibels. */
  hear(atS, rmsDbfs) {
    const step = Math.round(atS / STEP_S);
    const last = this.levels.at(-1)?.step ?? step - 1;
    // Levels come about every step: one that was left out looks like the next.
    for (let at = Math.max(last + 1, step - 5); at <= step; at++) this.levels.push({ step: at, rmsDbfs });
    while (this.levels[0].step < step - KEPT_S / STEP_S) this.levels.shift();
    this.atS = atS;
    this.arrivedMs = performance.now();
  }

  /** Takes the beginning of an utterance. */
  begin(event) {
    this.open = { startS: event.start_s, utterance: event.utterance };
  }

  /** Takes the answer for an utterance, or that there is none. */
  mark(event) {
    const { utterance, start_s: startS, end_s: endS } = event;
    if (event.final !== false && this.open?.utterance === utterance) this.open = null;
    const colour = this.labels.indexOf(event.emotion) % this.tones.length;
    this.spans.set(utterance, { startS, endS, colour, kind: kind(event), wordings: shorter(event) });
    const [oldest] = this.spans.keys();
    if (this.spans.get(oldest).endS < this.atS - KEPT_S) this.spans.delete(oldest);
  }

  /** Moves until `stop`. */
  start() {
    this.running = true;
    let shownMs = -Infinity;
    const frame = (nowMs) => {
      if (!this.running) return;
      if (nowMs - shownMs >= (this.still.matches ? STILL_FRAME_MS : FRAME_MS) - 4) {
        shownMs = nowMs;
        this.draw();
      }
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  stop() {
    this.running = false;
    this.open = null;
    this.arrivedMs = null;
    this.draw();
  }

  #restyle() {
    const style = getComputedStyle(this.canvas);
    const value = (name) => style.getPropertyValue(name).trim();
    this.colours = { ink: value("--ink"), soft: value("--soft"), faint: value("--faint"), line: value("--line") };
    this.tones = Array.from({ length: 8 }, (_, place) => value(`--tone-${place}`));
    this.font = `13px ${style.fontFamily}`;
    this.boldFont = `600 13px ${style.fontFamily}`;
    this.smallFont = `11px ${style.fontFamily}`;
    this.draw();
  }

  draw() {
    const { canvas, pen } = this;
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    this.perS = width < 600 ? 28 : 36;
    this.width = width;
    this.waveBottom = height - WORDS_PX - AXIS_PX;
    this.nowS = this.#now();
    this.#drawAxis(height);
    const spans = [...this.spans.values()];
    for (const [place, span] of spans.entries()) this.#drawSpan(span, spans[place + 1]);
    this.#drawWave();
  }

  /** The present on the stream's clock, carried on smoothly between two levels. */
  #now() {
    if (this.arrivedMs === null || this.still.matches) return this.atS;
    return this.atS + Math.min(3 * STEP_S, (performance.now() - this.arrivedMs) / 1000) - STEP_S;
  }

  #x(seconds) {
    return this.width - (this.nowS - seconds) * this.perS;
  }

  #drawAxis(height) {
    const { pen } = this;
    pen.strokeStyle = this.colours.line;
    pen.fillStyle = this.colours.soft;
    pen.font = this.smallFont;
    pen.textAlign = "center";
    pen.lineWidth = 1;
    pen.lineCap = "butt";
    const first = Math.max(0, Math.ceil((this.nowS - this.width / this.perS) / 5) * 5);
    for (let at = first; at <= this.nowS; at += 5) {
      const x = Math.round(this.#x(at)) + 0.5;
      pen.beginPath();
      pen.moveTo(x, 0);
      pen.lineTo(x, this.waveBottom);
      pen.stroke();
      if (x > 14 && x < this.width - 14) {
        pen.fillText(`${Math.floor(at / 60)}:${String(at % 60).padStart(2, "0")}`, x, height - 4);
      }
    }
  }

  #drawSpan(span, next) {
    const { pen } = this;
    const [left, right] = [this.#x(span.startS), this.#x(span.endS)];
    const end = next ? this.#x(next.startS) : this.width;
    if (end < 0 || left > this.width) return;
    const colour = this.tones[span.colour] ?? this.colours.soft;
    pen.save();
    pen.beginPath();
    pen.roundRect(left, 0.5, right - left, this.waveBottom - 1, 8);
    if (span.kind === "certain") {
      pen.globalAlpha = 0.2;
      pen.fillStyle = colour;
      pen.fill();
    } else {
      pen.strokeStyle = colour;
      pen.setLineDash(span.kind === "uncertain" ? [] : [2, 4]);
      pen.globalAlpha = 0.6;
      pen.stroke();
      if (span.kind === "uncertain") this.#hatch(left, right);
    }
    pen.restore();
    this.#drawWords(span, left, end - 6);
  }

  #hatch(left, right) {
    const { pen, waveBottom } = this;
    pen.clip();
    pen.globalAlpha = 0.3;
    pen.beginPath();
    for (let x = left - waveBottom; x < right; x += 8) {
      pen.moveTo(x, waveBottom);
      pen.lineTo(x + waveBottom, 0);
    }
    pen.stroke();
  }

  #drawWords({ kind, wordings }, left, right) {
    const { pen } = this;
    pen.fillStyle = kind === "certain" ? this.colours.ink : this.colours.soft;
    pen.font = kind === "certain" ? this.boldFont : this.font;
    pen.textAlign = "left";
    const width = (text) => pen.measureText(text).width;
    const text = wordings.find((words) => width(words) <= right - left) ?? "";
    // What leaves on the left keeps its words in sight for as long as they fit.
    pen.fillText(text, Math.max(left + 2, Math.min(EDGE_PX, right - width(text))), this.waveBottom + 18);
  }

  #drawWave() {
    const { pen } = this;
    const middle = this.waveBottom / 2;
    const heard = new Map(this.levels.map(({ step, rmsDbfs }) => [step, rmsDbfs]));
    const last = Math.floor(this.nowS / STEP_S);
    const bars = new Map();
    for (let step = last - Math.ceil(this.width / this.perS / STEP_S); step <= last; step++) {
      const share = ((heard.get(step) ?? FLOOR_DBFS) - FLOOR_DBFS) / (CEILING_DBFS - FLOOR_DBFS);
      const half = Math.max(0, Math.min(1, share)) * (middle - 10) + 0.01;
      const x = this.#x(step * STEP_S);
      const colour = this.#barColour(step * STEP_S);
      if (!bars.has(colour)) bars.set(colour, new Path2D());
      bars.get(colour).moveTo(x, middle - half);
      bars.get(colour).lineTo(x, middle + half);
    }
    pen.lineCap = "round";
    pen.lineWidth = BAR_SHARE * STEP_S * this.perS;
    for (const [colour, path] of bars) {
      pen.strokeStyle = colour;
      pen.stroke(path);
    }
  }

  #barColour(atS) {
    for (const { startS, endS, kind, colour } of this.spans.values()) {
      if (atS < startS || atS > endS) continue;
      return kind === "certain" ? this.tones[colour] : kind === "uncertain" ? this.colours.soft : this.colours.faint;
    }
    return this.open && atS >= this.open.startS ? this.colours.ink : this.colours.faint;
  }
}
