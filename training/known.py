"""Known or not: whether a picture shows any of the classes, told by its distance to training images in feature space.

Probabilities only compare the classes with each other: a coat may well be "79 % Norwegian elkhound". The score is the
mean cosine similarity to the nearest of some training images (Sun et al. 2022, "Out-of-distribution detection with deep
nearest neighbors"), on the principal axes of their features, which makes the reference small and the search cheap. Its
threshold is set on validation images; classes that are left out of the reference tell what it is worth.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.calibration import SLACK, Labels
from training.errors import TrainingError

FILE = "known.npy"
ROWS = 2048  # training images of the reference, and validation images that set the threshold, at most
_NEIGHBOURS = 10
# Measured on 120 breeds of dogs and an EfficientNet-B0 of 1,280 features, where 97 % of the validation images are kept:
# of 1,067 clothes 99 % are refused with 256 axes as with all, 85 % with 128. Without the mean it was 67 %, since what
# lies in no direction of the reference is no longer seen.
_DIMENSIONS = 256
_FEWEST = 20  # validation images that can set a threshold
_ROUNDS = 4  # of the search for the main axes
_TELLS = 1.5  # times as many of an absent class's images as of known ones are refused where the features tell anything

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """Training images in feature space, `rows` [images, dimensions] of length 1 each.

    A score is the mean cosine similarity to the `neighbours` nearest. `threshold` is the least score of a known image,
    None where nothing can set it: then every image counts as known.
    """

    rows: NDArray[np.float16]
    neighbours: int
    threshold: float | None

    @classmethod
    def load(cls, folder: Path, record: Mapping[str, Any]) -> "Reference":
        """Return an artifact's reference, `record` being model.json's `known`; raise ValueError for a broken one."""
        rows = np.load(folder / FILE, allow_pickle=False)
        neighbours, threshold = int(record["neighbours"]), record["threshold"]
        if rows.ndim != 2 or not 1 <= neighbours <= len(rows) or not np.isfinite(rows).all():
            raise ValueError(f"{FILE} is no reference of {neighbours} images or more")
        return cls(rows, neighbours, None if threshold is None else float(threshold))

    def scores(self, embeddings: NDArray[Any]) -> Rows:
        """Return the scores [N], -1 to 1, of embeddings [N, dimensions]."""
        return _nearest(_unit(embeddings) @ self.rows.astype(np.float32).T, self.neighbours)


@dataclass(frozen=True)
class Fitted:
    """A reference with what leads to it: an embedding is features @ axes; `record` is model.json's `known`."""

    reference: Reference
    axes: Rows  # [width, dimensions]
    record: dict[str, Any]


def fit(features: Rows, labels: Labels, valid: Rows, valid_labels: Labels, *, coverage: float) -> Fitted:
    """Return the reference made of training features [images, width], with a threshold by validation features.

    `labels` are the classes of the former, `valid_labels` of the latter; the threshold keeps the share `coverage` of
    the validation images. Raise TrainingError for features that are not finite.
    """
    if not (np.isfinite(features).all() and np.isfinite(valid).all()):
        raise TrainingError("The network's features are infinite or undefined numbers; lower the learning_rate.")
    axes = _main_axes(features)
    rows = _unit(features @ axes).astype(np.float16)
    # No more neighbours than a usual class has images: the others would be of other classes.
    neighbours = int(np.clip(np.median(np.unique(labels, return_counts=True)[1]), 1, _NEIGHBOURS))
    similarities = _unit(valid @ axes) @ rows.astype(np.float32).T  # [validation images, images]
    scores = _nearest(similarities, neighbours)
    threshold, note = None, _obstacle(len(valid), coverage)
    kept, unseen = 1.0, None
    if not note:
        lowest = float(np.sort(scores)[int((1 - coverage) * len(scores) + 1e-9)])
        threshold = min(max(lowest - SLACK, -1.0), 1.0)  # float16 rounds a few similarities to above 1
        kept = float((scores >= threshold).mean())
        unseen = _refused(similarities, labels, valid_labels, neighbours, threshold)
        # A reference with fewer rows refuses more of anything; by how much shows a class that is left out instead.
        another = (valid_labels + 1) % (labels.max() + 1)
        note = _judged(unseen, _refused(similarities, labels, another, neighbours, threshold))
    record = {
        "file": FILE,
        "images": len(rows),
        "neighbours": neighbours,
        "threshold": threshold,
        "coverage": kept,
        "samples": len(valid),
        "unseen_refused": unseen,
        "note": note,
    }
    return Fitted(Reference(rows, neighbours, threshold), axes, record)


def _main_axes(features: Rows) -> Rows:
    """Return the first singular directions [width, dimensions], scaled so that projections are about 1.

    By subspace iteration, in a tenth of the time of a full decomposition; the last ones need not be exact.
    """
    count, width = features.shape
    scale = np.float32(np.sqrt(np.square(features, dtype=np.float64).mean()) or 1.0)
    scaled = features / scale
    axes = np.random.default_rng(0).standard_normal((width, min(_DIMENSIONS, count, width))).astype(np.float32)
    for _ in range(_ROUNDS):
        axes = np.linalg.qr(scaled.T @ (scaled @ axes))[0]
    return np.asarray(axes / scale, np.float32)


def _unit(rows: NDArray[Any]) -> Rows:
    """Return the rows at length 1; one of zeros stays as it is."""
    rows = rows.astype(np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12)))


def _nearest(similarities: Rows, neighbours: int) -> Rows:
    """Return the mean [N] of the largest `neighbours` of each row of [N, images]."""
    first = similarities.shape[1] - neighbours
    return np.asarray(np.partition(similarities, first, axis=1)[:, first:].mean(1))


def _refused(similarities: Rows, labels: Labels, absent: Labels, neighbours: int, threshold: float) -> float | None:
    """Return the share of the validation images that is refused if for each one class is left out of the reference.

    `absent` [N] are those classes. None where the others together have too few images.
    """
    others = np.where(absent[:, None] == labels, np.float32(-np.inf), similarities)
    scores = _nearest(others, neighbours)
    return float((scores < threshold).mean()) if np.isfinite(scores).all() else None


def _obstacle(samples: int, coverage: float) -> str:
    """Return why there is no threshold, or nothing."""
    if coverage >= 1:
        return "The hyperparameter known_coverage is 1, so that every picture counts as known."
    if samples < _FEWEST:
        return f"{samples} validation images are too few to set a threshold, so that every picture counts as known."
    return ""


def _judged(unseen: float | None, refused: float | None) -> str:
    """Return the warning that the features cannot tell, or nothing.

    `unseen` is the share of refused images whose class is left out, `refused` where another class of the same kind is.
    """
    if unseen is None or refused is None:
        return "There are too few images of the other classes to see what becomes of a class that is left out."
    if unseen >= _TELLS * refused:
        return ""
    return (
        f"Images whose class is left out of the reference are refused hardly more often ({unseen:.1%}) than others "
        f"({refused:.1%}): these features do not tell apart what looks much like the classes, and those of a network "
        "without pretrained weights may tell nothing."
    )
