// What the page says in words; the same words as the command line's.

const REASONS = {
  too_short: "too short to judge",
  too_quiet: "too quiet to judge",
  clipped: "clipped, lower the input level",
  not_speech: "no speech",
};
const SAMPLE_RATE_HZ = 16000;

export const NO_ANSWER = "edge-ser does not answer. Look whether it still runs, then start again.";

/** Returns `0:03.2`, or `1:00:03.2` from an hour on. */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const minutes = Math.floor(tenths / 600);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  return minutes < 60
    ? `${minutes}:${rest}`
    : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

/** Returns the answer in a few words: `happy`, `perhaps happy`, `angry or happy`, `unclear`, `too short to judge`. */
export function answer(event) {
  if (event.type === "rejected") return REASONS[event.reason] ?? event.reason.replaceAll("_", " ");
  if (!event.uncertain) return event.emotion;
  const { candidates, probabilities } = event;
  const everything = Object.keys(probabilities).length;
  if (candidates.length === everything && everything > 2) return "unclear";
  if (candidates.length === 1) return `perhaps ${candidates[0]}`;
  return `${candidates.slice(0, -1).join(", ")} or ${candidates.at(-1)}`;
}

/** Returns how an event stands: `certain`, `uncertain` or `rejected`. */
export function kind(event) {
  if (event.type === "rejected") return "rejected";
  return event.uncertain ? "uncertain" : "certain";
}

/** Returns the answer in fewer and fewer words, the first that fits is shown. */
export function shorter(event) {
  if (event.type === "rejected") return [answer(event), "–"];
  if (!event.uncertain) return [event.emotion];
  return [`? ${answer(event)}`, `? ${event.candidates.slice(0, 2).join("/")}`, `? ${event.candidates[0]}`, "?"];
}

/** Returns every probability in words, the likeliest first. */
export function shares(event) {
  const sorted = Object.entries(event.probabilities).sort(([, a], [, b]) => b - a);
  return sorted.map(([label, share]) => `${label} ${share.toFixed(2)}`).join(", ");
}

/** Returns what a screen reader says of an utterance. */
export function spoken(event) {
  if (event.type === "rejected") return `Utterance ${event.utterance}: ${answer(event)}.`;
  if (event.uncertain) return `Utterance ${event.utterance}: uncertain, ${answer(event)}.`;
  return `Utterance ${event.utterance}: ${event.emotion}, ${Math.round(100 * event.confidence)} percent.`;
}

/** Returns seconds of 16 kHz samples, `17.4 s`. */
export function length(samples) {
  const seconds = samples / SAMPLE_RATE_HZ;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : clock(seconds);
}
