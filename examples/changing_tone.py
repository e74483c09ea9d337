"""An assistant that changes its tone: it acts on what is certain, and on nothing else.

    python examples/changing_tone.py [recording]

It hears a recording, lets the words of each utterance revise the emotion (from a table here, from speech-to-text in an
assistant), and tells its language model how to answer. What is uncertain leaves the tone as it was.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile

import edge_ser

RECORDING = Path(__file__).with_name("conversation.flac")
CHUNK_SAMPLES = 1_600
WORDS = (
    "good morning the train leaves at nine",
    "oh that is wonderful i have been waiting for weeks",
    "no i told you not to touch it",
    "i am so sorry i lost the letter she wrote me",
    "put the box on the table please",
    "ha we did it we really did it",
)
"""What is said in the recording, an utterance each."""
TONES = {
    "angry": "Answer briefly and calmly. Offer one next step. Do not joke.",
    "sad": "Answer gently and take your time. Ask whether help is wanted.",
    "happy": "Answer lightly; match the good mood.",
    "neutral": "Answer plainly.",
}


@dataclass
class Assistant:
    """Keeps a tone from turn to turn."""

    mood: str = "neutral"
    """The last emotion that was certain."""

    def hear(self, event: edge_ser.Emotion, words: str) -> str:
        """Return what the language model is told for this turn."""
        if not event.uncertain:
            self.mood = event.emotion
        return f"[{TONES.get(self.mood, TONES['neutral'])}] User: {words}"


def main(recording: str | Path = RECORDING) -> None:
    """Print what the language model is told, a line for each turn."""
    assistant = Assistant()
    stream = edge_ser.load().stream(risk=0.1)  # of the answers that count, one in ten may be wrong
    for event in heard(stream, recording):
        if isinstance(event, edge_ser.Emotion):
            words = WORDS[event.utterance - 1] if event.utterance <= len(WORDS) else ""
            event = stream.revise(event.utterance, transcript=words)
            print(assistant.hear(event, words))


def heard(stream: edge_ser.Stream, recording: str | Path) -> Iterator[object]:
    """Yield what a stream says to a recording, as it says it."""
    for chunk in soundfile.blocks(recording, CHUNK_SAMPLES, dtype="float32"):
        yield from stream.push(chunk)
    yield from stream.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
