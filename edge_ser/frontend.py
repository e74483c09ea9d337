"""From samples, transcript and voice to the inputs of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_ser.bundle import Bundle
from edge_ser.errors import BundleError
from edge_ser.graph_io import Input
from edge_ser.manifest import TOKENIZER_NAME
from edge_ser.voice import VoiceProfile

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class FrontEnd:
    """Prepares what one bundle's graph is told; it keeps nothing between utterances."""

    def __init__(self, bundle: Bundle) -> None:
        """Prepare for a bundle; its tokenizer is read at the first transcript."""
        self._bundle = bundle
        self._audio = bundle.manifest.input_of("audio")
        self._ids = bundle.manifest.input_of("text_ids")
        self._mask = bundle.manifest.input_of("text_mask")
        self._voice = bundle.manifest.input_of("voice")
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
            BundleError: The bundle's tokenizer does not open.
            ConfigError: The voice belongs to another model.
        """
        inputs: dict[str, NDArray[Any]] = {}
        if self._audio is not None:
            inputs[self._audio.name] = samples[np.newaxis].astype(np.float32, copy=False)
        if self._ids is not None and self._mask is not None:
            inputs[self._ids.name], inputs[self._mask.name] = self._text(transcript, self._ids)
        if self._voice is not None:
            inputs[self._voice.name] = _voice_input(voice, self._voice)
        return inputs

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
        # A host's transcript may hold half a surrogate pair, which the tokenizer refuses.
        text = transcript.encode("utf-8", "replace").decode("utf-8")
        return list(self._tokenizer.encode(text).ids)


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
        raise BundleError(
            f"{bundle.path(TOKENIZER_NAME)} is no tokenizer ({problem}); need one that the tokenizers package reads; "
            "export the bundle again: python export/to_onnx.py --help"
        ) from None
    return tokenizer


def _voice_input(voice: VoiceProfile | None, item: Input) -> NDArray[np.float32]:
    return (VoiceProfile() if voice is None else voice).as_input(item.embedding_size, item.space)
