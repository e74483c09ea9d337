"""What the students learn from: recordings, noise and rooms, and the bill of materials that their cards show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_ser.corpus import FOUR_CLASSES, Clip, list_sounds
from edge_ser.errors import ConfigError
from train.augment import Augmenter, Chances
from train.data import read_sounds
from train.splits import Split
from train.students.bank import Recording
from train.students.run_settings import EncoderSettings
from train.text import read_sentences

Row = dict[str, object]


@dataclass(frozen=True)
class Source:
    """Where everything is that students learn from."""

    data: Path
    """The corpora's folder."""
    teacher: Path
    """A Whisper encoder as transformers saves it."""
    spoken: Path | None = None
    """Speech without labels, WAV files as `train.speak` writes them; folders of other voices as `train.voices` does."""


def recordings_of(split: Split, data: Path, settings: EncoderSettings, spoken: Path | None) -> list[Recording]:
    """Return what is learnt from: the training speakers' clips, then speech without labels and sounds.

    Args:
        split: The clips of the corpora.
        data: The corpora's folder.
        settings: How often clips come, and in how many variants.
        spoken: Folder of speech without labels, such as `train.speak` writes, or None; each folder in it is one
            voice's, as `train.voices` writes them.

    Raises:
        ConfigError: A voice was made of somebody who is no training speaker.
    """
    repeat, variants = settings.repeat, settings.variants
    labelled = [
        Recording(clip.path, clip.speaker, FOUR_CLASSES.index(clip.emotion), repeat.get(clip.corpus, 1), variants)
        for clip in split.train
    ]
    streaming = sorted((data / "streaming").rglob("*.opus"))
    sounds = list_sounds(data / "noise" / "noise.csv", "training")
    synthetic = sorted(spoken.glob("*.wav")) if spoken is not None else []
    voices = sorted(spoken.glob("[!.]*/*.wav")) if spoken is not None else []
    _refuse_strangers(split, voices)
    return [
        *labelled,
        *(Recording(path, "", -1, variants=variants) for path in [*streaming, *sounds]),
        *(Recording(path, "", -1, variants=2) for path in synthetic),
        *(Recording(path, path.parent.name, -1, variants=2, acted=acted_label(path)) for path in voices),
    ]


def _refuse_strangers(split: Split, voices: Sequence[Path]) -> None:
    """Raise ConfigError where a voice is of no training speaker.

    One of who chooses or judges would leak; one of another corpus carries that corpus's licence.
    """
    heard = {clip.speaker for clip in split.train}
    for folder in sorted({path.parent for path in voices}):
        speaker = folder.name.rsplit("-", 2)[0]
        if speaker not in heard:
            raise ConfigError(
                f"{folder} is made of {speaker}, no training speaker of this run; need voices of those alone; "
                "remove that folder, or give another --spoken, made with python -m train.voices --settings of this run"
            )


def acted_label(path: Path) -> int:
    """Return the emotion that a changed voice's file is named after, or -1: pieces out of order say less of it."""
    emotion = path.stem.partition("-")[2]
    changed = path.parent.name.rsplit("-", 2)[1:2] == ["changed"]
    return FOUR_CLASSES.index(emotion) if changed and emotion in FOUR_CLASSES else -1


def augmenter_of(data: Path, chances: Chances) -> Augmenter:
    """Return what adds noise and rooms of the training side."""
    return Augmenter(
        noises=read_sounds(data / "noise", "noise.csv", "training"),
        rooms=read_sounds(data / "rir", "rir.csv", "training", "calibration"),
        chances=chances,
    )


def speakers_of(split: Split) -> dict[str, list[str]]:
    """Return the speakers of each side."""
    sides = {"train": split.train, "validation": split.validation, "test": split.test}
    return {side: sorted({clip.speaker for clip in clips}) for side, clips in sides.items()}


def bill_of_materials(
    settings: EncoderSettings, split: Split, data: Path, recordings: Sequence[Recording]
) -> list[Row]:
    """Return what the encoder's weights are learnt from: one row a corpus, sounds and teacher included."""
    rows = [_corpus(split.train, name) for name in sorted({clip.corpus for clip in split.train})]
    for folder, name in (("ami", "AMI (meetings, without labels)"), ("librispeech", "LibriSpeech (without labels)")):
        files = [recording for recording in recordings if recording.path.parent.name == folder]
        rows.append(_row(name, "CC BY 4.0", len(files)))
    spoken = sum(recording.path.suffix == ".wav" and not recording.speaker for recording in recordings)
    if spoken:
        rows.append(_row("synthetic speech (espeak-ng, flite, festival; without labels)", "none needed", spoken))
    changed = [recording for recording in recordings if recording.speaker and recording.label < 0]
    if changed:
        voices = len({recording.speaker for recording in changed})
        name = "the corpora above in other voices, and synthetic sentences as they act them (WORLD)"
        rows.append(_row(name, "as theirs", len(changed), voices))
    noises = len(list_sounds(data / "noise" / "noise.csv", "training"))
    rows.append(_row("noise recordings", "CC0 or CC BY", noises))
    rooms = sum(len(list_sounds(data / "rir" / "rir.csv", side)) for side in ("training", "calibration"))
    rows.append(_row("room responses", "Apache-2.0 or MIT", rooms))
    rows.append(_row(f"{settings.teacher_name} (teacher)", settings.teacher_licence, len(recordings)))
    return rows


def sentences_row(data: Path) -> Row:
    """Return the row of the written sentences that the text branches learn from."""
    sentences = read_sentences(data / "text" / "goemotions.csv.gz")
    count = sum(sentence.split == "train" and sentence.emotion in FOUR_CLASSES for sentence in sentences)
    return _row("GoEmotions (sentences)", "CC BY 4.0", count)


def _corpus(clips: Sequence[Clip], name: str) -> Row:
    own = [clip for clip in clips if clip.corpus == name]
    return _row(name, own[0].licence, len(own), len({clip.speaker for clip in own}))


def _row(corpus: str, licence: str, utterances: int, speakers: int = 0) -> Row:
    return {"corpus": corpus, "licence": licence, "utterances": utterances, "speakers": speakers}
