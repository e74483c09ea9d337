// The browser's microphone as chunks of s16le samples, at the rate that the browser itself has.

import { NO_ANSWER } from "./words.js";

const REASONS = {
  NotAllowedError: "The browser may not use the microphone. Allow it beside the address, then start again.",
  NotFoundError: "There is no microphone. Connect one, then start again.",
  NotReadableError: "The microphone is in use or does not answer. Close what uses it, then start again.",
  OverconstrainedError: "There is no microphone that fits. Connect another, then start again.",
};
const INSECURE =
  "Browsers give the microphone only to pages of this device or over https. " +
  "Open the page on the device that runs edge-ser, or put https in front of it.";
const NO_SOUND =
  "The browser's sound does not start. Some browsers hear only where there is something to play on: " +
  "connect a loudspeaker or headphones, then start again.";
const START_MS = 10_000;
const END_MS = 500;

const after = (pauseMs) => new Promise((resolve) => setTimeout(resolve, pauseMs));

/** What a person can mend, said in a sentence. */
export class Problem extends Error {}

/** A microphone that is open until `stop`. */
export class Microphone {
  /**
   * Opens it; the browser asks the person first.
   * @param {(chunk: ArrayBuffer) => void} take - gets each chunk of 50 ms.
   * @param {() => void} lose - is called when the microphone goes away.
   */
  static async open(take, lose) {
    if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) throw new Problem(INSECURE);
    const microphone = new Microphone();
    try {
      await microphone.#open(take, lose);
    } catch (error) {
      await microphone.#close();
      if (error instanceof Problem) throw error;
      throw new Problem(REASONS[error.name] ?? `The microphone failed: ${error.message}`);
    }
    return microphone;
  }

  #media;
  #context;
  #node;
  #end;
  #ended = new Promise((resolve) => (this.#end = resolve));

  async #open(take, lose) {
    // What makes speech pleasant for people takes away how it was said.
    const sound = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    this.#media = await navigator.mediaDevices.getUserMedia({ audio: sound });
    this.#context = new AudioContext();
    await this.#context.audioWorklet.addModule("worklet.js").catch(() => {
      throw new Problem(NO_ANSWER);
    });
    this.#node = new AudioWorkletNode(this.#context, "capture", { channelCount: 1, channelCountMode: "explicit" });
    this.#node.port.onmessage = ({ data }) => (data ? take(data) : this.#end());
    this.#media.getAudioTracks()[0].onended = lose;
    this.#context.createMediaStreamSource(this.#media).connect(this.#node);
    // It gives out silence; without a destination some browsers would not run it.
    this.#node.connect(this.#context.destination);
    const started = this.#context.resume().then(() => true);
    if (!(await Promise.race([started, after(START_MS)]))) throw new Problem(NO_SOUND);
  }

  /** Hertz. */
  get rateHz() {
    return this.#context.sampleRate;
  }

  /** Closes it, once the last chunk was taken. */
  async stop() {
    this.#node.port.postMessage("end");
    await Promise.race([this.#ended, after(END_MS)]);
    await this.#close();
  }

  async #close() {
    this.#media?.getTracks().forEach((track) => track.stop());
    if (this.#context && this.#context.state !== "closed") await this.#context.close();
  }
}
