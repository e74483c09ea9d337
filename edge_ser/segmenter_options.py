"""When an utterance begins, ends and is cut."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_ser.errors import ConfigError

_SHORTEST_LIMIT_S = 0.2


@dataclass(frozen=True)
class SegmenterOptions:
    """When an utterance begins, ends and is cut.

    The first five defaults were chosen on the dev side of `benchmarks/segmentation.py`. At a threshold of 0.5 silero
    misses who shouts or whispers (0.5 % of utterances began late, at 0.3 it is 0.1 %); noise alone is answered at 0.3
    hardly more often (2 times in 3.5 minutes, not once), since what stays doubtful is rejected as a whole.
    """

    threshold: float = 0.3
    """Speech probability, in [0, 1], from which a frame starts speech."""
    release_threshold: float = 0.25
    """Speech probability, in [0, 1], from which a frame continues the speech of the frame before it."""
    hint_probability: float = 0.05
    """Speech probability, in [0, 1], from which a frame before the first speech frame may be its beginning."""
    pre_roll_s: float = 0.3
    """Seconds kept before the first hint of speech: detectors answer late, and first syllables are soft."""
    longest_pre_roll_s: float = 1.0
    """Seconds kept before the first speech frame at most, however early the first hint was."""
    hangover_s: float = 0.5
    """Seconds without speech that end an utterance; shorter pauses stay inside it."""
    post_roll_s: float = 0.2
    """Seconds kept after the last speech frame; the rest of the hangover is silence."""
    min_speech_s: float = 0.25
    """Seconds of speech frames below which an utterance is marked too short."""
    sure_probability: float = 0.8
    """Speech probability, in [0, 1], below which the surest `min_speech_s` of an utterance leave it doubtful."""
    certain_probability: float = 0.95
    """As before, below which an answer is uncertain, however sure the model is: of 104 sounds without speech that chose
    it one passes, a sneeze, and dogs that bark do not; of 157 spoken clips 6 % stay below it."""
    max_utterance_s: float = 8.0
    """Seconds after which speech that goes on is cut, pre-roll included."""
    cut_search_s: float = 2.0
    """Seconds before that limit in which the quietest moment is looked for."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ConfigError: An option is out of range; the message names it.
        """
        rules = {
            "0 <= release_threshold <= threshold <= 1": 0 <= self.release_threshold <= self.threshold <= 1,
            "0 <= hint_probability <= 1": 0 <= self.hint_probability <= 1,
            "0 <= pre_roll_s <= longest_pre_roll_s": 0 <= self.pre_roll_s <= self.longest_pre_roll_s,
            "0 <= post_roll_s <= hangover_s": 0 <= self.post_roll_s <= self.hangover_s,
            "min_speech_s >= 0": self.min_speech_s >= 0,
            "0 <= sure_probability <= 1": 0 <= self.sure_probability <= 1,
            "0 <= certain_probability <= 1": 0 <= self.certain_probability <= 1,
            "cut_search_s >= min_speech_s + 0.05": self.cut_search_s >= self.min_speech_s + 0.05,
            "max_utterance_s >= longest_pre_roll_s + cut_search_s + 0.05": self.max_utterance_s
            >= self.longest_pre_roll_s + self.cut_search_s + 0.05,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise ConfigError(f"{self} does not fit together. It needs {broken[0]}; change one of these options.")


def options_within(longest_s: float) -> SegmenterOptions:
    """Return the default options, scaled down as far as a model that takes at most `longest_s` seconds needs it.

    Raises:
        ConfigError: The model takes too little for any stream.
    """
    if longest_s < _SHORTEST_LIMIT_S:
        raise ConfigError(
            f"The model takes {longest_s:g} s at most, a stream needs {_SHORTEST_LIMIT_S:g} s. Use another model."
        )
    default = SegmenterOptions()
    spare_s = 0.06  # a little more than the options need between each other
    room_s = longest_s - spare_s
    longest_pre_roll_s = min(default.longest_pre_roll_s, room_s / 4)
    min_speech_s = min(default.min_speech_s, (room_s - longest_pre_roll_s - spare_s) / 2)
    return replace(
        default,
        max_utterance_s=min(default.max_utterance_s, longest_s),
        pre_roll_s=min(default.pre_roll_s, longest_pre_roll_s),
        longest_pre_roll_s=longest_pre_roll_s,
        min_speech_s=min_speech_s,
        # Enough speech lies before the search, else the first piece of long speech would be too short to judge.
        cut_search_s=min(default.cut_search_s, room_s - longest_pre_roll_s - min_speech_s),
    )
