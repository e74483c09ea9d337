// Runs on the browser's audio thread: gathers the microphone's samples into chunks of signed 16-bit integers.

const CHUNK_S = 0.05;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate * CHUNK_S);
    this.chunk = new Int16Array(this.size);
    this.filled = 0;
    this.running = true;
    this.port.onmessage = () => this.end();
  }

  process([channels]) {
    for (const sample of channels[0] ?? []) {
      const limited = Math.max(-1, Math.min(1, sample));
      this.chunk[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(limited * 32768)));
      if (this.filled === this.size) this.post();
    }
    return this.running;
  }

  post() {
    const ready = this.chunk.slice(0, this.filled);
    this.filled = 0;
    this.port.postMessage(ready.buffer, [ready.buffer]);
  }

  /** Gives away what is left and says that nothing follows. */
  end() {
    this.running = false;
    if (this.filled) this.post();
    this.port.postMessage(null);
  }
}

registerProcessor("capture", Capture);
