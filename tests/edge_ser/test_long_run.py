"""Hours of audio: memory stays flat and no sample is lost."""

from __future__ import annotations

import pytest

from benchmarks.long_run import main


@pytest.mark.slow
def test_a_day_of_audio_leaves_memory_flat_and_the_ledger_balanced(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--minutes", str(24 * 60)])
    print(capsys.readouterr().out)
    assert status == 0


def test_the_long_run_tells_what_it_saw(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--minutes", "1"]) == 0
    took, memory, ledger = capsys.readouterr().out.splitlines()
    assert took.startswith("1 minutes of audio, ")
    assert "MB after the first minute" in memory
    assert ledger == "ledger: 960000 samples in the pipe, 0 not captured, 0 unaccounted for"
