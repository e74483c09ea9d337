"""A language pack: a low-rank adapter that labelled clips of one language teach, over a student that stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ser.corpus import Clip
from edge_ser.errors import ConfigError
from edge_ser.language_pack import LanguagePack
from train.spoken import read_spoken
from train.students.fusions.lora import LoraFusion
from train.students.histories import Histories, HistoryShares, voice_of
from train.students.schedule import learning_rate, set_rate
from train.students.student import Student

FRESH, WARM = 0, -1
"""Of the voices that each clip is heard with: nobody known yet, and most of what else the speaker said."""

_HISTORIES = 3
_WARM_UTTERANCES = 20
# Of the speaker alone, so that no other speaker's clip tells anything about theirs.
_OWN = HistoryShares(fresh=0.0, mostly_neutral=0.4, one_emotion=0.1, mixed=0.0, wrong=0.0)
_NOBODY = -1
"""The label of sound that is nobody's speech."""


@dataclass(frozen=True)
class PackSettings:
    """How a pack learns."""

    steps: int = 100
    batch: int = 192
    peak_learning_rate: float = 5e-3
    dropout: float = 0.3
    """Of what the pack reads."""
    weight_decay: float = 1.0
    """Towards no pack."""
    label_smoothing: float = 0.1
    non_speech_weight: float = 0.3


@dataclass(frozen=True, eq=False)
class Listened:
    """What a student makes of clips before a pack; V voices a clip, the first fresh, the last known well."""

    speakers: NDArray[np.str_]
    """(n,)."""
    labels: Tensor
    """Int64 (n,); -1 for sound that is nobody's speech."""
    hidden: Tensor
    """(n, V, H): the fusion's hidden layer."""
    apart: Tensor
    """(n, V, 2 W): what a pack reads."""
    opinion: Tensor
    """(n, V, C)."""
    doubt: Tensor
    """(n, V, 1): by what logits are divided."""

    def at(self, places: Sequence[int]) -> Listened:
        """Return some of the clips."""
        return Listened(*(getattr(self, item.name)[list(places)] for item in fields(self)))


@torch.no_grad()
def listen(student: Student, clips: Sequence[Clip], labels: Sequence[str], seed: int = 0) -> Listened:
    """Return what a student makes of labelled clips, for several voices known of each clip's speaker."""
    longest = 8 * 16_000
    heard = [student.listen(torch.from_numpy(read_spoken(clip.path)[:longest])[None])[2:] for clip in clips]
    truth = [labels.index(clip.emotion) for clip in clips]
    speakers = [clip.speaker for clip in clips]
    embeddings = [embedding.numpy() for _, embedding in heard]
    histories = Histories(embeddings, speakers, truth, neutral=labels.index("neutral"), shares=_OWN)
    rng, rows = np.random.default_rng(seed), []
    for place, (frames, embedding) in enumerate(heard):
        own = [n for n in range(len(clips)) if speakers[n] == speakers[place] and n != place]
        known = [embeddings[int(n)][0] for n in rng.permutation(own)[:_WARM_UTTERANCES]]
        drawn = [histories.draw(place, rng) for _ in range(_HISTORIES)]
        fresh = np.zeros_like(drawn[0])
        rows.append(_met(student, frames, embedding, [fresh, *drawn, voice_of(np.stack(known)) if known else fresh]))
    return Listened(
        np.array(speakers), torch.tensor(truth), *(torch.stack(column) for column in zip(*rows, strict=True))
    )


@torch.no_grad()
def listen_to_noise(student: Student, waves: Sequence[NDArray[np.float32]]) -> Listened:
    """Return what a student makes of sound that is nobody's speech; every voice is fresh."""
    rows = []
    for wave in waves:
        frames, embedding = student.listen(torch.from_numpy(wave)[None])[2:]
        fresh = np.zeros(2 * embedding.shape[1] + 1, np.float32)
        rows.append(_met(student, frames, embedding, [fresh] * (_HISTORIES + 2)))
    nobody = torch.full((len(waves),), _NOBODY)
    return Listened(np.array([""] * len(waves)), nobody, *(torch.stack(column) for column in zip(*rows, strict=True)))


def joined(first: Listened, second: Listened) -> Listened:
    """Return the clips of both."""
    pairs = [(getattr(first, item.name), getattr(second, item.name)) for item in fields(first)]
    return Listened(np.concatenate(pairs[0]), *(torch.cat(pair) for pair in pairs[1:]))


def fusion_of(student: Student) -> LoraFusion:
    """Return the fusion of a student that takes language packs.

    Raises:
        ConfigError: It takes none.
    """
    if not isinstance(student.fusion, LoraFusion):
        raise ConfigError(f"the student '{student.config.system}' takes no language packs; need 'lora'")
    return student.fusion


def learn_pack(student: Student, heard: Listened, settings: PackSettings, seed: int = 0) -> LanguagePack:
    """Return the pack that clips teach; the student stays as it is."""
    fusion = fusion_of(student).eval()
    torch.manual_seed(seed)
    shapes = fusion.pack_shapes
    down = nn.Parameter(torch.randn(shapes["pack_down"]) / shapes["pack_down"][0] ** 0.5)
    up = nn.Parameter(torch.zeros(shapes["pack_up"]))
    optimiser = torch.optim.AdamW([down, up], weight_decay=settings.weight_decay)
    for step in range(settings.steps):
        peak = settings.peak_learning_rate
        set_rate(optimiser, learning_rate(step, steps=settings.steps, warmup=10, peak=peak))
        rows = torch.randint(len(heard.labels), (settings.batch,))
        voices = torch.randint(heard.apart.shape[1], (settings.batch,))
        apart = nn.functional.dropout(heard.apart[rows, voices], settings.dropout)
        learnt = fusion.learnt(apart, down.unsqueeze(0), up.unsqueeze(0))
        logits = heard.opinion[rows, voices] + fusion.classify(heard.hidden[rows, voices], learnt)
        loss = _loss(logits / heard.doubt[rows, voices], heard.labels[rows], settings)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return LanguagePack(down.detach().numpy(), up.detach().numpy())


@torch.no_grad()
def logits_of(student: Student, heard: Listened, pack: LanguagePack | None, voice: int) -> NDArray[np.float64]:
    """Return logits (n, C) for one of the voices, such as `FRESH` or `WARM`."""
    fusion = fusion_of(student).eval()
    learnt = None
    if pack is not None:
        matrices = (torch.from_numpy(matrix).unsqueeze(0) for matrix in (pack.down, pack.up))
        learnt = fusion.learnt(heard.apart[:, voice], *matrices)
    logits = heard.opinion[:, voice] + fusion.classify(heard.hidden[:, voice], learnt)
    return (logits / heard.doubt[:, voice]).double().numpy()


def _met(
    student: Student, frames: Tensor, embedding: Tensor, voices: Sequence[NDArray[np.float32]]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return hidden layer, what sets the embedding apart, opinion and doubt, a row a voice."""
    count, fusion = len(voices), fusion_of(student)
    told, opinion, apart = student.voice(
        frames.expand(count, -1, -1), embedding.expand(count, -1), torch.from_numpy(np.stack(voices))
    )
    return fusion.hidden(fusion.pooling(told, None)), apart, opinion, student.familiarity(embedding).expand(count, -1)


def _loss(logits: Tensor, labels: Tensor, settings: PackSettings) -> Tensor:
    """Return the loss of a batch: the emotions, and no preference for what is nobody's speech."""
    spoken = labels != _NOBODY
    emotion = nn.functional.cross_entropy(logits[spoken], labels[spoken], label_smoothing=settings.label_smoothing)
    if bool(spoken.all()):
        return emotion
    return emotion - settings.non_speech_weight * nn.functional.log_softmax(logits[~spoken], dim=-1).mean()
