"""A loop of one's own: sound comes by callback, a worker pushes it, and words that come later revise the answers.

    python examples/own_loop.py [recording]

Sound arrives on a thread of its own, which only puts chunks into a queue that cannot grow without end; whoever owns the
other end owns the stream. A sound card's callback must never wait: there it is `put_nowait`, and what finds no room is
told to the stream, `stream.record_overflow(samples)`, so that the ledger stays true.
"""

from __future__ import annotations

import queue
import sys
import threading
from pathlib import Path

import soundfile

import edge_ser

RECORDING = Path(__file__).with_name("conversation.flac")
CHUNK_SAMPLES = 320
"""Samples at 16 kHz: 20 ms, as a sound card delivers them. Any other number gives the same events."""
WORDS = {2: "oh that is wonderful i have been waiting for weeks", 3: "no i told you not to touch it"}
"""What a speech-to-text engine made of two of the utterances, by number, a little later."""


def main(recording: str | Path = RECORDING) -> None:
    """Print every event as a line of JSON."""
    stream = edge_ser.load().stream()
    chunks: queue.Queue = queue.Queue(maxsize=500)
    threading.Thread(target=capture, args=(recording, chunks), daemon=True).start()

    while (chunk := chunks.get()) is not None:
        for event in stream.push(chunk):
            print(event.to_json())
    for event in stream.finish():  # the utterance that is still open, and the summary
        print(event.to_json())

    for utterance, transcript in WORDS.items():  # the last 32 utterances can be revised, after `finish` too
        print(stream.revise(utterance, transcript=transcript).to_json())


def capture(recording: str | Path, chunks: queue.Queue) -> None:
    """Stand in for a sound card: put a recording's chunks into a queue, then None."""
    for chunk in soundfile.blocks(recording, CHUNK_SAMPLES, dtype="float32"):
        chunks.put(chunk)
    chunks.put(None)


if __name__ == "__main__":
    main(*sys.argv[1:])
