"""From samples, transcript and voice to the inputs of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_ser.bundle import Bundle
from edge_ser.errors import BundleError
from edge_ser.graph_io import Input
from edge_ser.language_pack import pack_inputs
from edge_ser.manifest import TOKENIZER_NAME
from edge_ser.voice import VoiceProfile

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LONGEST_TOKEN = 100
"""Characters, more than any token of a sentence has."""


class FrontEnd:
    """Prepares what one bundle's graph is told; it keeps nothing between utterances."""

    def __init__(self, bundle: Bundle) -> None:
        """Prepare for a bundle; its tokenizer is read at the first transcript.

        Raises:
            BundleError: Its language pack is damaged or does not fit.
        """
        self._bundle = bundle
        self._audio = bundle.manifest.input_of("audio")
        self._ids = bundle.manifest.input_of("text_ids")
        self._mask = bundle.manifest.input_of("text_mask")
        self._prosody = bundle.manifest.input_of("prosody")
        self._mfcc = bundle.manifest.input_of("mfcc")
        self._spectrogram = bundle.manifest.input_of("spectrogram")
        self._voice = bundle.manifest.input_of("voice")
        self._pack = pack_inputs(bundle)
        self._tokenizer: Tokenizer | None = None

    def inputs(
        self, samples: NDArray[np.float32], transcript: str | None = None, voice: VoiceProfile | None = None
    ) -> dict[str, NDArray[Any]]:
        """Return the graph's inputs by name; what the graph does not read is left out.

        Args:
            samples: Mono float32 in [-1, 1], shape (n,), at 16 kHz.
            transcript: What was said; None or blank is no text.
            voice: What is known of the speaker; None is a fresh profile.

        Raises:
            BundleError: The bundle's tokenizer does not open, or fails on the transcript.
            ConfigError: The voice belongs to another model.
        """
        inputs: dict[str, NDArray[Any]] = {}
        if self._audio is not None:
            inputs[self._audio.name] = samples[np.newaxis].astype(np.float32, copy=False)
        if self._prosody is not None:
            # Late, so that models without it need not load it.
            from edge_ser.prosody import prosody

            inputs[self._prosody.name] = prosody(samples)[np.newaxis]
        if self._mfcc is not None:
            from edge_ser.hand_crafted import coefficients

            inputs[self._mfcc.name] = coefficients(samples, self._mfcc.parameters)[np.newaxis]
        if self._spectrogram is not None:
            from edge_ser.hand_crafted import picture

            inputs[self._spectrogram.name] = picture(samples, self._spectrogram.parameters)[np.newaxis]
        return inputs | self._pack | self.text_inputs(transcript) | self.voice_inputs(voice)

    def text_inputs(self, transcript: str | None) -> dict[str, NDArray[Any]]:
        """Return the inputs that carry a transcript; None or blank is no text.

        Raises:
            BundleError: The bundle's tokenizer does not open, or fails on the transcript.
        """
        if self._ids is None or self._mask is None:
            return {}
        ids, mask = self._text(transcript, self._ids)
        return {self._ids.name: ids, self._mask.name: mask}

    def voice_inputs(self, voice: VoiceProfile | None) -> dict[str, NDArray[Any]]:
        """Return the input that carries what is known of the speaker; None is a fresh profile.

        Raises:
            ConfigError: The voice belongs to another model.
        """
        return {} if self._voice is None else {self._voice.name: _voice_input(voice, self._voice)}

    def uses_text(self, inputs: dict[str, NDArray[Any]]) -> bool:
        """Return whether `inputs` carry at least one token of a transcript."""
        return self._mask is not None and bool(inputs[self._mask.name].any())

    def _text(self, transcript: str | None, ids: Input) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        tokens = self._tokens(transcript, ids) if transcript and transcript.strip() else []
        if not tokens:
            return np.zeros((1, 1), dtype=np.int64), np.zeros((1, 1), dtype=np.int64)
        row = np.array([tokens], dtype=np.int64)
        return row, np.ones_like(row)

    def _tokens(self, transcript: str, ids: Input) -> list[int]:
        if self._tokenizer is None:
            self._tokenizer = _open_tokenizer(self._bundle, ids)
        # Of a whole book, read no more than what can become tokens.
        text = transcript[: ids.max_tokens * _LONGEST_TOKEN]
        # A host's transcript may hold half a surrogate pair, which the tokenizer refuses.
        text = text.encode("utf-8", "replace").decode("utf-8")
        try:
            return list(self._tokenizer.encode(text).ids)
        except Exception as problem:  # The package raises plain Exception.
            raise _no_tokenizer(self._bundle, problem) from None


def _open_tokenizer(bundle: Bundle, ids: Input) -> Tokenizer:
    # Late, so that speech alone needs no tokenizer in memory.
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(bundle.read(TOKENIZER_NAME).decode("utf-8"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(ids.max_tokens)
    except BundleError:
        raise
    except Exception as problem:  # The package raises plain Exception.
        raise _no_tokenizer(bundle, problem) from None
    return tokenizer


def _no_tokenizer(bundle: Bundle, problem: Exception) -> BundleError:
    return BundleError(
        f"{bundle.path(TOKENIZER_NAME)} is no tokenizer ({problem}); need one that the tokenizers package reads; "
        "export the bundle again: python export/to_onnx.py --help"
    )


def _voice_input(voice: VoiceProfile | None, item: Input) -> NDArray[np.float32]:
    return (VoiceProfile() if voice is None else voice).as_input(item.embedding_size, item.space)
