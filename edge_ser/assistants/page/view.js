// What is shown beside the ribbon: the present answer, the history and the ledger.

import * as words from "./words.js";

const KEPT_ROWS = 200;
const TONES = 8;
const FLOOR_DBFS = -60;
const TELL_EVERY_MS = 1500;
const METER_EVERY_MS = 1000;
const ACCOUNTS = [
  ["classified_samples", "judged"],
  ["silence_samples", "silence"],
  ["rejected_samples", "rejected"],
  ["dropped_samples", "lost"],
];

const byId = (id) => document.getElementById(id);

/** Returns a new element with a class and, in it, a text. */
function make(name, className = "", text = "") {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}

/** Returns an element that is for the eye alone: others are told the same in words. */
function drawn(element) {
  element.setAttribute("aria-hidden", "true");
  return element;
}

export class View {
  constructor() {
    this.labels = [];
    this.rows = new Map();
    this.toldMs = -Infinity;
    this.meterMs = -Infinity;
  }

  /** Starts again, for a model and its labels. */
  reset(labels, model) {
    this.labels = labels;
    byId("model").textContent = model;
    this.rows.clear();
    byId("history").replaceChildren();
    byId("scroll").hidden = true;
    byId("empty").hidden = false;
    byId("shares").replaceChildren(...labels.map((label) => this.#shareRow(label)));
    this.now("Nothing said yet", "Listening. Speak as you would to anybody.", "idle");
  }

  #shareRow(label) {
    const row = make("li", "share");
    row.dataset.label = label;
    const track = make("span", "track");
    track.append(make("span", `fill ${this.#tone(label)}`));
    row.append(make("span", "name", label), drawn(track), make("span", "figure", "–"));
    return row;
  }

  /** Shows a state in large words, what there is to say about it below, and how it stands. */
  now(text, about, kind) {
    const answer = byId("answer");
    answer.textContent = text;
    answer.className = kind;
    answer.style.setProperty("--letters", text.length + 2);
    byId("about").textContent = about;
  }

  /** Shows how loud it is; `doing` says what it is taken for. */
  level(rmsDbfs, speech) {
    const meter = byId("level");
    const limited = Math.max(FLOOR_DBFS, Math.min(0, rmsDbfs));
    meter.firstElementChild.style.transform = `scaleX(${1 - limited / FLOOR_DBFS})`;
    meter.classList.toggle("speech", speech);
    // What a screen reader reads changes no faster than it can be read.
    const nowMs = performance.now();
    if (nowMs - this.meterMs < METER_EVERY_MS) return;
    this.meterMs = nowMs;
    meter.setAttribute("aria-valuenow", Math.round(limited));
    meter.setAttribute("aria-valuetext", `${Math.round(limited)} decibels, ${speech ? "speech" : "no speech"}`);
  }

  /** Says that somebody has begun to speak. */
  begin() {
    this.now("…", "Somebody speaks.", "idle");
    for (const row of byId("shares").children) this.#fill(row, null, "");
  }

  /** Shows an answer, or why there is none; a final one enters the history. */
  answer(event) {
    const kind = words.kind(event);
    this.now(words.answer(event), this.#about(event, kind), `${kind} ${this.#tone(event.emotion)}`);
    for (const row of byId("shares").children) this.#show(row, event, kind);
    this.#attributes(event.attributes);
    if (event.final !== false) this.#remember(event, kind);
  }

  #about(event, kind) {
    if (kind === "rejected") return "Heard, but not judged";
    const soFar = event.final ? "" : " · so far";
    if (kind === "certain") return `Confidence ${event.confidence.toFixed(2)}${soFar}`;
    return `Uncertain: ${event.candidates.length > 1 ? "one of the hatched" : "too little to act on"}${soFar}`;
  }

  #tone(label) {
    return `tone-${this.labels.indexOf(label) % TONES}`;
  }

  #show(row, event, kind) {
    if (kind === "rejected") return this.#fill(row, null, "");
    const { label } = row.dataset;
    const chosen = kind === "certain" ? label === event.emotion : event.candidates.includes(label);
    this.#fill(row, event.probabilities[label], chosen ? kind : "");
  }

  #fill(row, share, kind) {
    row.className = `share ${kind}`;
    row.querySelector(".fill").style.width = `${100 * (share ?? 0)}%`;
    row.querySelector(".figure").textContent = share === null ? "–" : share.toFixed(2);
  }

  #attributes(attributes) {
    const parts = Object.entries(attributes ?? {}).map(([name, value]) => `${name} ${value.toFixed(2)}`);
    byId("attributes").textContent = parts.join(" · ");
    byId("attributes").hidden = parts.length === 0;
  }

  #remember(event, kind) {
    const row = this.#historyRow(event, kind);
    const known = this.rows.get(event.utterance);
    if (known) known.replaceWith(row);
    else byId("history").prepend(row);
    this.rows.set(event.utterance, row);
    if (this.rows.size > KEPT_ROWS) {
      const [oldest, last] = this.rows.entries().next().value;
      last.remove();
      this.rows.delete(oldest);
    }
    byId("scroll").hidden = false;
    byId("empty").hidden = true;
  }

  #historyRow(event, kind) {
    const row = make("li", kind);
    const [from, to] = [event.start_s, event.end_s].map(words.clock);
    const time = make("span", "time", from);
    time.append(make("span", "unseen", ` to ${to}: `));
    const said = make("span", "said", words.answer(event));
    if (kind === "uncertain") said.prepend(make("span", "unseen", "uncertain, "));
    row.append(time, said);
    if (kind === "rejected") return row;
    const figure = make("span", "figure", kind === "certain" ? event.confidence.toFixed(2) : "?");
    row.append(drawn(figure), this.#bar(event), make("span", "unseen", `; ${words.shares(event)}`));
    return row;
  }

  #bar(event) {
    const bar = drawn(make("span", "bar"));
    for (const label of this.labels) {
      const part = make("span", this.#tone(label));
      const chosen = event.uncertain ? event.candidates.includes(label) : label === event.emotion;
      part.classList.toggle("other", !chosen);
      part.style.flexGrow = event.probabilities[label];
      bar.append(part);
    }
    return bar;
  }

  /** Shows where the audio went; `unsentS` is what never reached the server. */
  ledger(ledger, unsentS) {
    const rows = ACCOUNTS.filter(([key], place) => place < 2 || ledger[key] > 0);
    const parts = rows.map(([key, name]) => [name, words.length(ledger[key])]);
    if (unsentS >= 0.05) parts.push(["not sent", `${unsentS.toFixed(1)} s`]);
    byId("ledger").replaceChildren(...parts.map(([name, text]) => this.#account(name, text)));
    byId("accounts").replaceChildren(...rows.map(([key, name]) => this.#part(name, ledger[key])));
    const settled = ACCOUNTS.reduce((sum, [key]) => sum + ledger[key], 0);
    const balances = settled === ledger.captured_samples;
    byId("balance").textContent = balances
      ? `${words.length(settled)} heard, every sample in exactly one account.`
      : `${ledger.captured_samples} samples heard, ${settled} accounted for.`;
    byId("balance").classList.toggle("problem", !balances);
  }

  #account(name, text) {
    const pair = make("div", name.replace(" ", "-"));
    pair.append(make("dt", "", name), make("dd", "", text));
    return pair;
  }

  #part(name, samples) {
    const part = make("span", name);
    part.style.flexGrow = samples;
    return part;
  }

  /** Tells a screen reader an answer; where they come fast, it hears the newest and no more. */
  tell(event) {
    this.untold = words.spoken(event);
    if (this.telling) return;
    const waitMs = Math.max(0, this.toldMs + TELL_EVERY_MS - performance.now());
    this.telling = setTimeout(() => {
      this.telling = null;
      this.toldMs = performance.now();
      byId("spoken").textContent = byId("announce").checked ? this.untold : "";
    }, waitMs);
  }

  /** Says how it stands, calmly. */
  state(text, kind) {
    if (byId("state").textContent !== text) byId("state").textContent = text;
    document.body.dataset.state = kind;
  }

  /** Says what went wrong and what helps; an empty text takes it away. */
  problem(text) {
    byId("problem").textContent = text;
    byId("problem").hidden = !text;
  }
}
