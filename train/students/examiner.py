"""How students do on the validation speakers: alone, with the voice known, with words, with somebody else's voice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from edge_ser.corpus import FOUR_CLASSES, Clip
from edge_ser.metrics import confusion_matrix, unweighted_accuracy
from edge_ser.prosody import prosody
from train.spoken import read_spoken
from train.students.fusion import Heard
from train.students.histories import voice_of
from train.students.student import Student
from train.text import ConstructedPairs, encode_batch, read_sentences

WARM_UTTERANCES = 20


class Examiner:
    """Validation clips, heard once: every student of a run stands on the same encoder."""

    def __init__(self, clips: Sequence[Clip], data: Path, tokenizer: Tokenizer, student: Student) -> None:
        self.clips = clips
        self.truth = np.array([FOUR_CLASSES.index(clip.emotion) for clip in clips])
        waves = [read_spoken(clip.path) for clip in clips]
        self.prosody = [torch.from_numpy(prosody(wave)).unsqueeze(0) for wave in waves]
        pairs = ConstructedPairs.of(read_sentences(data / "text" / "goemotions.csv.gz"), "dev")
        rng, longest = np.random.default_rng(0), student.config.max_tokens
        self.texts = [encode_batch(tokenizer, [pairs.draw(int(label), rng)], longest) for label in self.truth]
        with torch.no_grad():
            self.heard = [student.listen(torch.from_numpy(wave).unsqueeze(0)) for wave in waves]
        self.embeddings = np.stack([heard[3][0].numpy() for heard in self.heard])
        self.voices = {kind: self._voices(kind) for kind in ("cold", "warm", "wrong")}

    def _voices(self, kind: str) -> Tensor:
        rng = np.random.default_rng(1)
        speakers = np.array([clip.speaker for clip in self.clips])
        names = sorted(set(speakers.tolist()))
        rows = []
        for place, clip in enumerate(self.clips):
            own = np.flatnonzero(speakers == clip.speaker)
            own = own[own != place]
            if kind == "wrong" and len(names) > 1:
                others = [name for name in names if name != clip.speaker]
                own = np.flatnonzero(speakers == others[int(rng.integers(len(others)))])
            if kind == "cold" or not len(own):
                rows.append(np.zeros(2 * self.embeddings.shape[1] + 1, np.float32))
            else:
                chosen = rng.choice(own, min(len(own), WARM_UTTERANCES), replace=False)
                rows.append(voice_of(self.embeddings[chosen]))
        return torch.from_numpy(np.stack(rows))

    @torch.no_grad()
    def __call__(self, student: Student) -> dict[str, float]:
        """Return UA of a student in each condition; `text` comes with constructed sentences and a fresh voice."""
        student.eval()
        figures = {kind: self._ua(student, voices, words=False) for kind, voices in self.voices.items()}
        if "text_ids" in student.fusion.reads:
            figures["text"] = self._ua(student, self.voices["cold"], words=True)
        return figures

    def _ua(self, student: Student, voices: Tensor, *, words: bool) -> float:
        nothing = np.zeros((1, 1), np.int64)
        predicted = []
        for place, heard in enumerate(self.heard):
            ids, mask = self.texts[place] if words else (nothing, nothing)
            told = {"text_ids": torch.from_numpy(ids), "text_mask": torch.from_numpy(mask)}
            told["prosody"] = self.prosody[place]
            known = Heard(*heard, *student.voice(heard[2], heard[3], voices[place : place + 1]))
            predicted.append(int(student.answer(known, told).argmax()))
        return round(unweighted_accuracy(confusion_matrix(self.truth, predicted, len(FOUR_CLASSES))), 4)
