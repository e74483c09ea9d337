// Audio that is to be sent and, for a while, what was sent: after a break the server says how much of it arrived.

const KEPT_S = 45;

export class Outbox {
  constructor(bytesPerS) {
    this.bytesPerS = bytesPerS;
    this.waiting = [];
    this.waitingBytes = 0;
    this.sent = [];
    this.sentBytes = 0;
    this.lostS = 0;
  }

  get isEmpty() {
    return this.waiting.length === 0;
  }

  /** Adds a chunk; where too much waits the oldest is lost, and counted. */
  add(chunk) {
    this.waiting.push(chunk);
    this.waitingBytes += chunk.byteLength;
    while (this.waitingBytes > KEPT_S * this.bytesPerS) this.#lose(this.#next().byteLength);
  }

  /** Returns the next chunk, which is taken to be sent. */
  take() {
    const chunk = this.#next();
    this.sent.push({ from: this.sentBytes, chunk });
    this.sentBytes += chunk.byteLength;
    while (this.sentBytes - this.sent[0].from > KEPT_S * this.bytesPerS) this.sent.shift();
    return chunk;
  }

  /** Lets everything from a byte on wait again: only so much had arrived. */
  rewind(arrivedBytes) {
    const again = [];
    for (const { from, chunk } of this.sent) {
      if (from + chunk.byteLength > arrivedBytes) again.push(chunk.slice(Math.max(0, arrivedBytes - from)));
    }
    const bytes = again.reduce((sum, chunk) => sum + chunk.byteLength, 0);
    this.#lose(this.sentBytes - arrivedBytes - bytes);
    this.waiting.unshift(...again);
    this.waitingBytes += bytes;
    this.sent = [];
    this.sentBytes = arrivedBytes;
  }

  #next() {
    const chunk = this.waiting.shift();
    this.waitingBytes -= chunk.byteLength;
    return chunk;
  }

  #lose(bytes) {
    this.lostS += bytes / this.bytesPerS;
  }
}
