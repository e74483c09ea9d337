"""Fits an adapted head to a few labelled clips: a Gaussian process around the base model's answer.

The base model's log probabilities are the prior mean, so few clips, or clips far away, leave its answer as it is. The
constants were chosen on nemo and ravdess (benchmarks/adapt.py measures them on other corpora).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_ser.head import Floats, Head, Kernel, VoicePrior, Whitening, with_new_labels

FAR_AMPLITUDES = (0.0, 4.0, 16.0)
"""What the far Gaussian may weigh; cross-validation chooses."""

_NEAR_AMPLITUDE = 16.0
_REACHES = (0.8, 1.5)
_CONSTANT = 0.1
_SHRINKAGE = 0.2
"""Of the clips' covariance towards a sphere."""
_LARGEST_RANK = 64
_SHARPNESSES = np.geomspace(0.05, 3.0, 40)
_MOST_UNEVEN = 4.0
_STEPS = 300
_STEP_TOLERANCE = 1e-4
_FOLDS = 10
_VOICE_FOLDS = 5

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Examples:
    """What the base model made of labelled clips."""

    embeddings: Floats
    """Shape (n, D)."""
    base_logits: Floats
    """Answers to the expected voice, shape (n, base labels)."""
    cold_logits: Floats
    """Answers to a voice of which nothing is known, shape (n, base labels)."""
    labels: Indices
    """Shape (n,): the base model's labels first, then the new ones."""
    voices: Indices
    """Who speaks, shape (n,)."""
    label_count: int
    """All labels."""
    temperature: float
    """Of the base model."""

    def __len__(self) -> int:
        """Return how many clips there are."""
        return len(self.labels)

    def keep(self, rows: NDArray[np.bool_]) -> Examples:
        """Return some of the clips."""
        return Examples(
            self.embeddings[rows],
            self.base_logits[rows],
            self.cold_logits[rows],
            self.labels[rows],
            self.voices[rows],
            self.label_count,
            self.temperature,
        )


def expected_voice(examples: Examples) -> VoicePrior:
    """Return the voice that the clips lead to expect, every label counting alike.

    One voice is trusted as a profile that has heard it; of several, an unknown speaker soon takes the place.
    """
    weights = _label_weights(examples.labels)
    mean = np.average(examples.embeddings, axis=0, weights=weights)
    deviation = np.sqrt(np.average((examples.embeddings - mean) ** 2, axis=0, weights=weights))
    if len(np.unique(examples.voices)) == 1:
        return VoicePrior(mean, deviation, heard=float(len(examples)), patience=10.0, first_trust=1.0)
    return VoicePrior(mean, deviation, heard=10.0, patience=3.0, first_trust=1.0)


def blank_head(voice: VoicePrior, base_labels: int) -> Head:
    """Return a head that says, as log probabilities, what the base model says to an expected voice."""
    size = voice.mean.size
    return Head(
        voice=voice,
        whitening=Whitening(np.zeros((size, 0)), np.zeros(0), 1.0),
        kernel=Kernel(0.0, np.zeros(0), np.zeros(0)),
        temperature=1.0,
        sharpness=1.0,
        clips=np.zeros((0, size)),
        pull=np.zeros((0, base_labels)),
    )


def fit_head(examples: Examples, far_amplitude: float, first_trust: float = 1.0) -> Head:
    """Return the head that fits the clips.

    Labels without a clip keep the base model's answer.

    Args:
        examples: Clips of two labels or more.
        far_amplitude: Weight of the far Gaussian: how much the clips say about sounds that are little like them.
        first_trust: How far the clips count for a voice of which nothing is known yet, in [0, 1].
    """
    voice = replace(expected_voice(examples), first_trust=first_trust)
    offsets = examples.embeddings - voice.mean
    whitening = _whitening(offsets, examples.labels)
    clips = whitening(offsets).astype(np.float16).astype(np.float64)  # as they will be kept
    kernel = Kernel(_CONSTANT, np.array([_NEAR_AMPLITUDE, far_amplitude]), np.array(_REACHES))
    known = with_new_labels(examples.base_logits / examples.temperature, examples.label_count)
    present = np.unique(examples.labels)
    weights = _label_weights(examples.labels)
    targets = np.searchsorted(present, examples.labels)
    sharpness = _sharpness(known[:, present], targets, weights)
    pull = np.zeros((len(examples), examples.label_count))
    pull[:, present] = _pull(kernel(clips, clips), sharpness * known[:, present], targets, weights)
    return Head(voice, whitening, kernel, examples.temperature, sharpness, clips, pull)


def choose_far_amplitude(examples: Examples) -> float:
    """Return the weight of the far Gaussian that says most about clips left out.

    Whole voices are left out where there are several, for whoever speaks next may be nobody of them.
    """
    groups = voice_folds(examples) if len(np.unique(examples.voices)) > 1 else even_folds(examples.labels, _FOLDS)

    def evidence(far_amplitude: float) -> float:
        return float(_log_likelihoods(held_out_logits(examples, groups, far_amplitude), examples.labels).mean())

    return max(FAR_AMPLITUDES, key=evidence)


def choose_first_trust(examples: Examples, far_amplitude: float) -> float:
    """Return how far the clips should count for the first words of a voice: wholly, or not until it is known.

    With one voice, wholly. With several, only where voices left out are judged better by more than a standard error:
    whoever waits for it loses little, for a voice is soon known.
    """
    if len(np.unique(examples.voices)) == 1:
        return 1.0
    groups = voice_folds(examples)
    adapted, base = (
        _log_likelihoods(held_out_logits(examples, groups, far_amplitude, trust), examples.labels)
        for trust in (1.0, 0.0)
    )
    gain = adapted - base
    return float(gain.mean() > gain.std() / np.sqrt(len(gain)))


def held_out_logits(examples: Examples, groups: Indices, far_amplitude: float, trust: float = 1.0) -> Floats:
    """Return logits, shape (n, labels), of heads that were fitted without the clip's group.

    A clip is judged by the base model where too little is left to fit a head to.

    Args:
        examples: The clips.
        groups: Group of each clip, shape (n,).
        far_amplitude: Weight of the far Gaussian.
        trust: 1 for a voice that is known or expected, 0 for the first words of another.
    """
    known = examples.base_logits if trust else examples.cold_logits
    logits = with_new_labels(known / examples.temperature, examples.label_count)
    for group in np.unique(groups):
        inside, rest = groups == group, examples.keep(groups != group)
        if len(np.unique(rest.labels)) > 1:
            head = fit_head(rest, far_amplitude)
            logits[inside] = head.logits(known[inside], examples.embeddings[inside], head.voice.mean, trust)
    return logits


def voice_folds(examples: Examples) -> Indices:
    """Return a group for each clip so that no voice is in two, shape (n,)."""
    order = np.random.default_rng(0).permutation(np.unique(examples.voices))
    fold_of = {int(voice): place % _VOICE_FOLDS for place, voice in enumerate(order)}
    return np.array([fold_of[int(voice)] for voice in examples.voices])


def even_folds(labels: Indices, folds: int) -> Indices:
    """Return a group for each clip, every label spread evenly over the groups; one a clip where there are enough."""
    if folds >= len(labels):
        return np.arange(len(labels))
    order = np.lexsort((np.random.default_rng(0).permutation(len(labels)), labels))
    groups = np.empty(len(labels), dtype=np.int64)
    groups[order] = np.arange(len(labels)) % folds
    return groups


def _label_weights(labels: Indices) -> Floats:
    """Return a weight for each clip so that every label counts alike, but none beyond measure; their mean is 1."""
    present, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    even = len(labels) / len(present) / counts
    weights = np.clip(even, 1 / _MOST_UNEVEN, _MOST_UNEVEN)[place]
    balanced: Floats = weights / weights.mean()
    return balanced


def _whitening(offsets: Floats, labels: Indices) -> Whitening:
    present, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    centres = np.stack([offsets[labels == label].mean(axis=0) for label in present])
    within = offsets - centres[place] if counts.max() > 1 else offsets
    if not np.any(within):
        return Whitening(np.zeros((offsets.shape[1], 0)), np.zeros(0), 1.0)
    _, singular, axes = np.linalg.svd(within, full_matrices=False)
    variances = singular**2 / len(within)
    sphere = _SHRINKAGE * variances.sum() / offsets.shape[1]
    kept = min(_LARGEST_RANK, int(np.sum(singular > 1e-6 * singular[0])))
    gains = np.sqrt(sphere / ((1 - _SHRINKAGE) * variances[:kept] + sphere))
    unscaled = Whitening(axes[:kept].T, gains, 1.0)
    scale = float(np.sqrt(np.mean(np.sum(unscaled(offsets) ** 2, axis=1))))
    return Whitening(unscaled.axes, gains, scale)


def _sharpness(known: Floats, targets: Indices, weights: Floats) -> float:
    def evidence(sharpness: float) -> float:
        chosen = _log_softmax(sharpness * known)[np.arange(len(targets)), targets]
        return float(np.sum(weights * chosen) - np.log(sharpness) ** 2)

    return float(max(_SHARPNESSES, key=evidence))


def _pull(likeness: Floats, prior: Floats, targets: Indices, weights: Floats) -> Floats:
    """Return the coefficients that maximise the posterior, shape (n, labels).

    Each step solves the quadratic bound of Böhning (1992), which never overshoots and is inverted once.
    """
    wanted = np.eye(prior.shape[1])[targets]
    weight = weights[:, np.newaxis]
    solve = np.linalg.inv(0.5 * weight * likeness + np.eye(len(likeness)))
    pull = np.zeros_like(prior)
    for _ in range(_STEPS):
        said = np.exp(_log_softmax(prior + likeness @ pull))
        step = solve @ (weight * (said - wanted) + pull)
        pull -= step
        if np.abs(step).max() < _STEP_TOLERANCE:
            break
    return pull


def _log_likelihoods(logits: Floats, labels: Indices) -> Floats:
    chosen: Floats = _log_softmax(logits)[np.arange(len(labels)), labels]
    return chosen


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised
