// One conversation with the server: hello, audio in, events out. A connection that breaks is resumed without a loss.

import { Outbox } from "./outbox.js";
import { NO_ANSWER } from "./words.js";

/** Together a little less than the half minute for which the server keeps a session. */
const PAUSES_MS = [250, 500, 1000, ...Array(13).fill(2000)];
/** The server keeps the session after these: the network failed, or it was silent too long. */
const LOST = new Set([1006, 4408]);
const LATE = "edge-ser did not answer in time; the last words may be missing.";
export const BAD_TOKEN = 4401;
const REASONS = {
  [BAD_TOKEN]: "edge-ser asks for a token. Open the address that it printed, all of it, or type the token here.",
  4404: "The connection was away too long. Start again.",
};
const NO_EVENTS = new Set(["ready", "level", "error"]);
const MOST_BUFFERED_S = 1;
const PATIENCE_MS = 20_000;

export class Conversation {
  /**
   * @param {object} hello - the first message, without `type` and what resuming needs.
   * @param {{message: (message: object) => void, broken: () => void, ended: (reason: string, code?: number) => void}} listener -
   *   `message` gets every message, `broken` is called while the connection is tried again, `ended` once, last;
   *   its reason is empty if all went well; `code` is the socket's, where that ended it.
   */
  constructor(hello, listener) {
    this.hello = hello;
    this.listener = listener;
    this.outbox = new Outbox(2 * hello.rate_hz);
    this.session = null;
    this.events = 0;
    this.tries = 0;
    this.#connect();
  }

  /** Seconds of audio that could not be sent in time. */
  get unsentS() {
    return this.outbox.lostS;
  }

  /** Sends a chunk of s16le samples, now or as soon as the connection takes it. */
  send(chunk) {
    this.outbox.add(chunk);
    this.#pump();
  }

  /** Says that no audio follows; the last events and the summary come, then the end. */
  finish() {
    this.finishing = true;
    this.#pump();
    setTimeout(() => this.#end(LATE), PATIENCE_MS);
  }

  #connect() {
    const address = new URL("listen", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.hash = "";
    this.socket = new WebSocket(address);
    this.socket.onopen = () => {
      const resume = this.session ? { resume: this.session, events_seen: this.events } : {};
      this.#say({ type: "hello", ...this.hello, ...resume });
    };
    this.socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
    this.socket.onclose = ({ code, reason }) => this.#closed(code, reason);
  }

  #say(message) {
    this.socket.send(JSON.stringify(message));
  }

  #pump() {
    const mostBytes = MOST_BUFFERED_S * 2 * this.hello.rate_hz;
    while (this.ready && this.socket.bufferedAmount < mostBytes && !this.outbox.isEmpty) {
      this.socket.send(this.outbox.take());
    }
    if (!this.ready) return;
    if (!this.outbox.isEmpty) {
      clearTimeout(this.pumping);
      this.pumping = setTimeout(() => this.#pump(), 100);
    } else if (this.finishing && !this.saidFinish) {
      this.saidFinish = true;
      this.#say({ type: "finish" });
    }
  }

  #take(message) {
    if (this.over) return;
    if (!NO_EVENTS.has(message.type)) this.events++;
    this.summed ||= message.type === "summary";
    this.listener.message(message);
    if (message.type !== "ready") return;
    this.tries = 0;
    this.session = message.session;
    this.outbox.rewind(message.received_bytes ?? 0);
    this.ready = true;
    this.#pump();
  }

  #closed(code, reason) {
    this.ready = this.saidFinish = false;
    if (this.over) return;
    if (this.summed) return this.#end(this.finishing ? "" : sentence(reason));
    if (LOST.has(code) && this.session && this.tries < PAUSES_MS.length) {
      this.listener.broken();
      setTimeout(() => this.over || this.#connect(), PAUSES_MS[this.tries++]);
      return;
    }
    this.#end(REASONS[code] ?? (sentence(reason) || NO_ANSWER), code);
  }

  #end(reason, code) {
    if (this.over) return;
    this.over = true;
    this.ready = false;
    this.socket.close();
    this.listener.ended(reason, code);
  }
}

/** Returns what the server said as a sentence. */
function sentence(reason) {
  return reason && `${reason[0].toUpperCase()}${reason.slice(1).replace(/\.$/, "")}.`;
}
