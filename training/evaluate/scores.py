"""Numbers that say how good a classifier is, from probabilities and labels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15  # of the calibration error, as in Guo et al. 2017
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """What a model said of a split: probabilities float64 [N, classes] and true labels int64 [N]."""

    probabilities: NDArray[np.float64]
    labels: Counts

    @property
    def predicted(self) -> Counts:
        return np.asarray(self.probabilities.argmax(1), np.int64)

    @property
    def confidence(self) -> NDArray[np.float64]:
        return np.asarray(self.probabilities.max(1), np.float64)

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.asarray(self.predicted == self.labels)


@dataclass(frozen=True)
class CalibrationBin:
    """Answers of similar confidence: their share of all, mean confidence and accuracy."""

    share: float
    confidence: float
    accuracy: float


def confusion(answers: Answers) -> Counts:
    """Return counts [true class, predicted class]."""
    classes = answers.probabilities.shape[1]
    flat = np.bincount(answers.labels * classes + answers.predicted, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def per_class(matrix: Counts, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of each class; 0 where a ratio has no denominator."""
    rows = []
    for number, name in enumerate(classes):
        hits, support, claimed = matrix[number, number], matrix[number].sum(), matrix[:, number].sum()
        scores = {"precision": _ratio(hits, claimed), "recall": _ratio(hits, support)}
        rows.append({"class": name, **scores, "f1": _ratio(2 * hits, support + claimed), "support": int(support)})
    return rows


def macro_f1(matrix: Counts) -> float:
    """Return the mean F1 of the classes that occur as truth or as an answer (as scikit-learn has it)."""
    denominators = matrix.sum(0) + matrix.sum(1)
    occurs = denominators > 0
    return float((2 * np.diagonal(matrix)[occurs] / denominators[occurs]).mean())


def top_accuracy(answers: Answers, count: int) -> float:
    """Return the share of images whose class is among the `count` likeliest."""
    best = np.argsort(-answers.probabilities, axis=1, kind="stable")[:, :count]
    return float((best == answers.labels[:, None]).any(1).mean())


def calibration(answers: Answers) -> list[CalibrationBin]:
    """Return the bins of equal width in confidence that hold any answers."""
    which = np.minimum((answers.confidence * BINS).astype(int), BINS - 1)
    bins = []
    for number in np.unique(which):
        inside = which == number
        confidence, accuracy = answers.confidence[inside].mean(), answers.right[inside].mean()
        bins.append(CalibrationBin(float(inside.mean()), float(confidence), float(accuracy)))
    return bins


def expected_calibration_error(bins: list[CalibrationBin]) -> float:
    return sum(one.share * abs(one.confidence - one.accuracy) for one in bins)


def confusion_pairs(matrix: Counts, classes: tuple[str, ...], most: int = 20) -> list[dict[str, Any]]:
    """Return the most frequent mistakes, most frequent first, then in class order."""
    mistakes = matrix.copy()
    np.fill_diagonal(mistakes, 0)
    pairs = [(int(mistakes[i, j]), int(i), int(j)) for i, j in np.argwhere(mistakes)]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return [{"true": classes[i], "predicted": classes[j], "count": count} for count, i, j in pairs[:most]]


def _ratio(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0
