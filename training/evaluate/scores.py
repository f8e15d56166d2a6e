"""The metrics of a classifier, from its answers. No array here has [classes, classes] entries: there may be 10,000."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.calibration import Flags, Floats, Labels, Z, softmax

WORST = 10  # classes whose recall the gate looks at


@dataclass(frozen=True)
class Answers:
    """A model's answers for the images of a split: arrays of one entry for each image."""

    labels: Labels
    predicted: Labels
    confidence: Floats  # of the predicted class, after the temperature
    uncalibrated: Floats  # the same before it
    rank: Labels  # of the true class among the model's answers; 0 is the first
    similarity: Floats = field(default_factory=lambda: np.empty(0))  # to what it knows; empty without a reference

    @classmethod
    def from_logits(cls, logits: NDArray[Any], labels: Labels, temperature: float = 1.0) -> "Answers":
        """Return the answers that finite logits [N, classes] give; of equal logits the first class wins."""
        rows, classes = np.arange(len(labels)), np.arange(logits.shape[1])
        true = logits[rows, labels][:, None]
        ahead = (logits > true) | ((logits == true) & (classes < labels[:, None]))  # [N, classes]
        predicted = logits.argmax(1)
        confidence, uncalibrated = (softmax(logits, one)[rows, predicted] for one in (temperature, 1.0))
        return cls(labels, np.asarray(predicted, np.int64), confidence, uncalibrated, ahead.sum(1, dtype=np.int64))

    @classmethod
    def join(cls, parts: Sequence["Answers"]) -> "Answers":
        """Return the answers of several batches as one."""
        return cls(*(np.concatenate([getattr(part, spec.name) for part in parts]) for spec in fields(cls)))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> Flags:
        return np.asarray(self.predicted == self.labels)

    def verdicts(self, sure: float | None, known: float | None) -> NDArray[np.str_]:
        """Return for each image right or wrong, or none_of_these or not_sure: those are neither.

        `sure` is the least confidence and `known` the least similarity that count; None: any does.
        """
        found = np.where(self.right, "right", "wrong").astype("U13")
        if sure is not None:
            found[self.confidence < sure] = "not_sure"
        if known is not None:
            found[~(self.similarity >= known)] = "none_of_these"
        return found


def interval(hits: int, of: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (Wilson 1927): it holds for few images, and near 0 and 1."""
    if not of:
        return 0.0, 1.0
    share, weight = hits / of, Z * Z / of
    middle = (share + weight / 2) / (1 + weight)
    reach = Z * math.sqrt(share * (1 - share) / of + weight / (4 * of)) / (1 + weight)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def per_class(answers: Answers, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of each class; 0 where a ratio has no denominator."""
    count = len(classes)
    supports, claims = (np.bincount(of, minlength=count) for of in (answers.labels, answers.predicted))
    hits = np.bincount(answers.labels[answers.right], minlength=count)
    return [
        {
            "class": name,
            "precision": _ratio(hit, claimed),
            "recall": _ratio(hit, support),
            "f1": _ratio(2 * hit, support + claimed),
            "support": int(support),
        }
        for name, hit, support, claimed in zip(classes, hits, supports, claims, strict=True)
    ]


def worst_classes_recall(rows: Sequence[dict[str, Any]], worst: int = WORST) -> float:
    """Return the mean recall of the `worst` classes that have test images at all (of all, where there are fewer)."""
    recalls = sorted(row["recall"] for row in rows if row["support"])
    return float(np.mean(recalls[:worst]))


def macro_f1(answers: Answers, rows: Sequence[dict[str, Any]]) -> float:
    """Return the mean F1 of the classes that occur as truth or as an answer, as scikit-learn does."""
    occurs = np.union1d(answers.labels, answers.predicted)
    return float(np.mean([rows[number]["f1"] for number in occurs]))


def top_accuracy(answers: Answers, count: int) -> float:
    """Return the share of images whose class is among the model's `count` best answers."""
    return float((answers.rank < count).mean())


def confusions(answers: Answers) -> list[tuple[int, int, int]]:
    """Return (true class, predicted class, images) of the mistakes, most frequent first, then in class order."""
    wrong = ~answers.right
    pairs, counts = np.unique(
        np.stack([answers.labels[wrong], answers.predicted[wrong]]), axis=1, return_counts=True
    )  # [2, pairs], in class order
    order = np.argsort(-counts, kind="stable")
    return [(int(pairs[0, i]), int(pairs[1, i]), int(counts[i])) for i in order]


def _ratio(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0
