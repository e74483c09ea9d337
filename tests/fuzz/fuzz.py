"""Coverage-guided fuzzing of what is read from outside, with atheris (the extra `fuzz`).

python tests/fuzz/fuzz.py manifest --seconds 60

It ends with the number of executions, or with the input that broke an invariant, kept as a file; to run that one again:

python tests/fuzz/fuzz.py manifest --input crash-...
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

NAMES = ("manifest", "bundle", "voice", "audio", "csv")
LONGEST_BYTES = 16_384
HANG_S = 60
MEMORY_MB = 2_048
MISSING = "atheris is not installed; type: pip install -e '.[fuzz]'"


def main() -> int:
    """Fuzz one target in a process of its own: libFuzzer ends that one without a chance to clean up."""
    arguments = _arguments()
    if not _has_atheris():
        print(MISSING, file=sys.stderr)
        return 3
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="edge-ser-fuzz-", dir=memory) as room:
        child = os.fork()
        if child == 0:
            tempfile.tempdir = room
            os._exit(_fuzz(arguments))
        return abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _has_atheris() -> bool:
    # A folder of that name would be found, too; only the package has this.
    found = importlib.util.find_spec("atheris")
    return found is not None and found.origin is not None


def _fuzz(arguments: argparse.Namespace) -> int:
    """Run until the time is over or something was found."""
    import atheris

    with atheris.instrument_imports(include=["edge_ser"]):
        from tests.fuzz import targets
    target = targets.TARGETS[arguments.target]
    if arguments.input is not None:
        try:
            target(arguments.input.read_bytes())
        except Exception:
            traceback.print_exc()
            return 1
        return 0
    corpus = arguments.corpus or Path(tempfile.mkdtemp(prefix="edge-ser-corpus-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for place, seed in enumerate(targets.seeds(arguments.target)):
        (corpus / f"seed-{place}").write_bytes(seed)
    options = [
        f"-max_total_time={arguments.seconds}", f"-max_len={LONGEST_BYTES}", f"-timeout={HANG_S}",
        f"-rss_limit_mb={MEMORY_MB}", f"-seed={arguments.seed}", "-print_final_stats=1", str(corpus),
    ]  # fmt: skip
    mutator = _JsonMutator(arguments.target).mutate if arguments.target in ("manifest", "bundle", "voice") else None
    atheris.Setup([sys.argv[0], *options], target, custom_mutator=mutator)
    atheris.Fuzz()
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz what is read from outside.")
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the random numbers (default: 1)")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="keep what was found interesting here")
    parser.add_argument("--input", type=Path, metavar="FILE", help="run this one input instead")
    return parser.parse_args()


class _JsonMutator:
    """Changes a value of a JSON input every other time, so that more than the JSON reader is tried."""

    def __init__(self, target: str) -> None:
        self._target = target

    def mutate(self, data: bytes, longest: int, seed: int) -> bytes:
        """Return a changed input."""
        import atheris

        dice = random.Random(seed)
        if dice.random() < 0.5:
            with contextlib.suppress(ValueError, RecursionError, OverflowError):
                changed = self._changed(data, dice)
                if len(changed) <= longest:
                    return changed
        return bytes(atheris.Mutate(data, longest))

    def _changed(self, data: bytes, dice: random.Random) -> bytes:
        from tests.fuzz import targets

        head = data[:1] if self._target == "bundle" else b""
        plain = json.loads(data[len(head) :])
        changed = change(plain, dice)
        if self._target == "voice" and isinstance(changed, dict) and dice.random() < 0.9:
            return targets.signed(changed)
        return head + json.dumps(changed).encode()


def change(plain: object, dice: random.Random) -> object:
    """Return a JSON value with one of its parts replaced, removed or doubled."""
    from tests.fuzz import targets

    places = _places(plain)
    if not places:
        return dice.choice(targets.ODD_VALUES)
    parent, key = dice.choice(places)
    move = dice.randrange(8)
    if move == 0:
        del parent[key]
    elif move == 1:
        other, other_key = dice.choice(places)
        parent[key] = json.loads(json.dumps(other[other_key]))
    elif move == 2:
        parent[key] = targets.nested(dice.choice(targets.DEPTHS))
    elif move == 3 and isinstance(parent[key], int | float):
        parent[key] = parent[key] * dice.choice((-1, 0.5, 2, 10, 1e6, 1e-6))
    elif move == 4 and isinstance(parent, dict):
        parent[str(dice.choice(targets.ODD_VALUES))] = parent.pop(key)
    else:
        parent[key] = dice.choice(targets.ODD_VALUES)
    return plain


def _places(plain: object) -> list[tuple[dict | list, str | int]]:
    found: list[tuple[dict | list, str | int]] = []
    waiting = [plain]
    while waiting and len(found) < 5_000:
        value = waiting.pop()
        if isinstance(value, dict):
            found += [(value, key) for key in value]
            waiting += value.values()
        elif isinstance(value, list):
            found += [(value, place) for place in range(len(value))]
            waiting += value
    return found


if __name__ == "__main__":
    raise SystemExit(main())
