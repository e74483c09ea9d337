"""A student: a small speech encoder, the voice it knows, and one system's fusion. Starts from random weights."""

from __future__ import annotations

from torch import Tensor, nn

from train.students.config import StudentConfig
from train.students.familiarity import Familiarity
from train.students.fusion import Fusion, Heard
from train.students.fusions.camulenet import CamulenetFusion
from train.students.fusions.hump_cat import HumpCatFusion
from train.students.fusions.lora import LoraFusion
from train.students.fusions.mdat import MdatFusion
from train.students.fusions.mha import MhaFusion
from train.students.small_encoders import SpeechEncoder
from train.students.voice_sense import VoiceSense

FUSIONS: dict[str, type[Fusion]] = {
    "mdat": MdatFusion,
    "hump-cat": HumpCatFusion,
    "camulenet": CamulenetFusion,
    "mha": MhaFusion,
    "lora": LoraFusion,
}
"""Each system's own part."""


class Student(nn.Module):
    """Waveform, a voice and what the system reads beside them; logits, embedding and frames out."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.speech = SpeechEncoder(
            width=config.speech_width,
            mels=config.mels,
            blocks=config.speech_blocks,
            layers=config.speech_layers,
            passes=config.speech_passes,
            dropout=config.dropout,
        )
        self.voice = VoiceSense(config.speech_width, config.told_width, config.classes)
        self.fusion: Fusion = FUSIONS[config.system](config)
        self.familiarity = Familiarity(2 * config.speech_width)

    @property
    def embedding_size(self) -> int:
        """Return D: mean and deviation of the speech frames."""
        return 2 * self.config.speech_width

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the names of what it is given, in order."""
        return ("audio", *self.fusion.reads, "voice")

    def listen(self, audio: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return mel, early frames, frames and embedding of a waveform (B, samples)."""
        mel, early, frames = self.speech(audio)
        return mel, early, frames, self.speech.pooled(frames)

    def hear(self, audio: Tensor, voice: Tensor) -> Heard:
        """Return everything that the fusion may want of a waveform (B, samples) and a voice (B, 4 W + 1)."""
        mel, early, frames, embedding = self.listen(audio)
        return Heard(mel, early, frames, embedding, *self.voice(frames, embedding, voice))

    def answer(self, heard: Heard, told: dict[str, Tensor]) -> Tensor:
        """Return logits (B, C): the first opinion and what the fusion adds, less sure where the sound is unfamiliar.

        A sound may be unfamiliar while its words are plain: where there are words, the first opinion alone is doubted.
        """
        added, doubt = self.fusion(heard, told), self.familiarity(heard.embedding)
        if "text_mask" not in self.fusion.reads:
            return (heard.opinion + added) / doubt
        worded = told["text_mask"].to(added.dtype).amax(1, keepdim=True)
        return heard.opinion / doubt + added * (worded + (1.0 - worded) / doubt)

    def forward(self, *values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (B, C), embedding (B, D) and frames (B, T, W) for values in the order of `inputs`."""
        told = dict(zip(self.inputs, values, strict=True))
        heard = self.hear(told["audio"], told["voice"])
        return self.answer(heard, told), heard.embedding, heard.frames
