"""Calibration: the temperature of the softmax, and the confidence below which the answer is "not sure".

Both are fitted on the validation split; the test split only measures them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

BINS = 15  # of the calibration error, as in Guo et al. 2017
COLDEST, HOTTEST = 0.05, 20.0
SLACK = 1e-6  # another machine adds in another order; that alone must not bring an answer below the threshold
Z = 1.959964  # standard deviations that hold 95 % of a normal distribution
_PRIOR = 1.0  # weight of "the temperature is 1", in images
_CELLS = 4_000_000  # logits processed at a time, so that 10,000 classes need little memory

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class CalibrationBin:
    """The answers of similar confidence: their share of all answers, their mean confidence and their accuracy."""

    share: float
    confidence: float
    accuracy: float


def softmax(logits: NDArray[Any], temperature: float = 1.0) -> Floats:
    """Return float64 probabilities [N, classes] of finite logits; they may be huge."""
    scaled = logits.astype(np.float64)
    scaled = (scaled - scaled.max(1, keepdims=True)) / temperature
    powers = np.exp(scaled)
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float64)


def fit_temperature(logits: NDArray[Any], labels: Labels, steps: int = 30) -> float:
    """Return the temperature, from 0.05 to 20, that makes `labels` [N] most likely given `logits` [N, classes].

    The summed negative log-likelihood is convex in the inverse temperature b. So is the prior b - log b that is added:
    it is least at 1 and weighs as much as one image. Without it, a validation split without mistakes would give the
    lowest temperature, and one whose logits are all equal none at all. The minimum is found by bisection of the slope.
    Raise TrainingError for logits that are not finite.
    """
    if not np.isfinite(logits).all():
        raise TrainingError("The trained network returns infinite or undefined numbers; lower the learning_rate.")
    low, high = np.log(1 / HOTTEST), np.log(1 / COLDEST)
    for _ in range(steps):  # of a span of 6: 30 end within 1e-8
        middle = (low + high) / 2
        inverse = float(np.exp(middle))
        if _slope(logits, labels, inverse) + _PRIOR * (1 - 1 / inverse) > 0:
            high = middle
        else:
            low = middle
    return round(float(np.clip(np.exp(-(low + high) / 2), COLDEST, HOTTEST)), 6)


def calibrated_loss(logits: NDArray[Any], labels: Labels) -> tuple[float, float]:
    """Return the mean negative log-likelihood in nats at the temperature that fits best, and that temperature."""
    temperature = fit_temperature(logits, labels, steps=12)  # within 0.2 %: the loss is flat there
    total = 0.0
    for part in _chunks(logits):
        scaled = logits[part].astype(np.float64) / temperature
        scaled -= scaled.max(1, keepdims=True)
        total += float((np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(scaled)), labels[part]]).sum())
    return total / len(labels), temperature


def _slope(logits: NDArray[Any], labels: Labels, inverse: float) -> float:
    """Return the derivative of the summed negative log-likelihood: expected logit minus the true class's, summed."""
    slope = 0.0
    for part in _chunks(logits):
        gaps = logits[part].astype(np.float64)
        gaps -= gaps.max(1, keepdims=True)  # below 0, the best one 0: nothing overflows
        weights = np.exp(gaps * inverse)
        expected = (weights * gaps).sum(1) / weights.sum(1)
        slope += float((expected - gaps[np.arange(len(gaps)), labels[part]]).sum())
    return slope


def _chunks(logits: NDArray[Any]) -> Iterator[slice]:
    rows = max(1, _CELLS // logits.shape[1])
    for start in range(0, len(logits), rows):
        yield slice(start, start + rows)


def calibration(confidence: Floats, right: Flags) -> list[CalibrationBin]:
    """Return the bins of equal width in confidence that are not empty."""
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        CalibrationBin(
            float((which == number).mean()),
            float(confidence[which == number].mean()),
            float(right[which == number].mean()),
        )
        for number in np.unique(which)
    ]


def expected_calibration_error(confidence: Floats, right: Flags) -> float:
    """Return the mean gap between confidence and accuracy over the bins, weighted by their size; 0 to 1."""
    return sum(one.share * abs(one.confidence - one.accuracy) for one in calibration(confidence, right))


def coverage_and_precision(confidence: Floats, right: Flags, threshold: float) -> tuple[float, float | None]:
    """Return the share of answers that reach `threshold`, and the share of those that is right (None of no answer)."""
    answered = confidence >= threshold
    return float(answered.mean()), float(right[answered].mean()) if answered.any() else None


def abstain(confidence: Floats, right: Flags, *, coverage: float, precision: float) -> dict[str, float] | None:
    """Return `threshold` and the `coverage` and `precision` that it has on these answers; None for no threshold.

    With `precision` above 0 it is the threshold of the largest coverage that reaches this precision (None if none
    does), else the highest threshold that still answers the share `coverage` (None for 1: everything is answered).
    """
    if not precision and coverage >= 1:
        return None
    order = np.argsort(confidence, kind="stable")
    rising, hits = confidence[order], right[order]
    thresholds = np.maximum(rising - SLACK, 0.0)
    first = np.searchsorted(rising, thresholds)  # of the answers at each threshold
    answered = len(rising) - first
    precise = hits[::-1].cumsum()[::-1][first] / answered
    fits = precise >= precision if precision else answered >= coverage * len(rising) - 1e-9
    if not fits.any():
        return None
    best = int(np.flatnonzero(fits)[0 if precision else -1])
    return {
        "threshold": float(thresholds[best]),
        "coverage": float(answered[best] / len(rising)),
        "precision": float(precise[best]),
    }
