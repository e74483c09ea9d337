"""Clients that stall, send garbage or break off disturb nobody; `benchmarks/serve.py` is the long run."""

from __future__ import annotations

import asyncio
import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.serve import differing
from benchmarks.serve_crowd import Conversation, Mischief, Scene, cutter, garbage, stalled, well_behaved
from edge_ser.recognizer import EmotionRecognizer
from tests.edge_ser.assistants.running import Ledgers, serving

SECONDS = 5.0


def test_the_others_notice_nothing(recognizer: EmotionRecognizer, recording: NDArray[np.int16]) -> None:
    async def run() -> tuple[list[Conversation], list[Mischief], Ledgers]:
        # `serving` asserts that every client that came has left with a balanced ledger.
        async with serving(recognizer, resume_s=0.5) as service:
            scene = Scene(service.where, recording, time.perf_counter() + SECONDS)
            people = [asyncio.ensure_future(well_behaved(scene, number)) for number in range(4)]
            cutting, idle, noisy = Mischief(), Mischief(), Mischief()
            await asyncio.gather(
                *(cutter(scene, number, cutting) for number in range(3)), stalled(scene, idle), garbage(scene, noisy)
            )
            return list(await asyncio.gather(*people)), [cutting, idle, noisy], service

    people, (cutting, idle, noisy), service = asyncio.run(run())
    assert differing(people, recording, recognizer) == 0
    assert all(talk.events[-1]["ledger"]["captured_samples"] == talk.sent_samples for talk in people)
    assert cutting.cuts >= 3 and idle.connections >= 2 and noisy.connections >= 3
    assert {"the connection was lost", "finished"} <= set(service.why.values())
