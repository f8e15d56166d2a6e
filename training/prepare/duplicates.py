"""Finds what a split should not share with another: the same bytes, and nearly the same picture."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from training.prepare.splits import NAMES, Splits
from training.prepare.verify import Verified

HASH_BITS = 4  # of 64 bits that may differ
GREY_LEVELS = 2.5  # of 255, mean difference of the thumbnails
DETAIL = 4.0  # grey levels of deviation; flatter pictures all look alike to a hash
_CHUNK = 512

Pair = tuple[Verified, str, Verified, str]  # an image and its split, a better protected one and its split


def identical(splits: Splits) -> list[Pair]:
    """Return each image whose very bytes are in a better protected split too (train < valid < test)."""
    pairs = []
    for rank, name in enumerate(NAMES):
        protected = {image.sha256: (image, other) for other in NAMES[rank + 1 :] for image in splits[other]}
        pairs += [(image, name, *protected[image.sha256]) for image in splits[name] if image.sha256 in protected]
    return pairs


def without(splits: Splits, pairs: Sequence[Pair]) -> Splits:
    """Return the splits without the less protected image of each pair."""
    losing = {id(pair[0]) for pair in pairs}
    return {name: [image for image in images if id(image) not in losing] for name, images in splits.items()}


def contradictory(splits: Splits) -> list[tuple[Verified, Verified]]:
    """Return neighbours with the same bytes but different classes: at least one label is wrong."""
    same = defaultdict(list)
    for images in splits.values():
        for image in images:
            same[image.sha256].append(image)
    return [(a, b) for group in same.values() for a, b in pairwise(group) if a.found.label != b.found.label]


def near(splits: Splits) -> list[Pair]:
    """Return pairs across splits that show nearly the same picture (re-encoded, resized), not the same bytes.

    A 64-bit difference hash proposes and a 16 x 16 thumbnail decides. Every pair across splits is compared: 2,000
    against 8,000 images take about a tenth of a second, so no index is worth its code.
    """
    pairs: list[Pair] = []
    for rank, name in enumerate(NAMES):
        mine = _detailed(splits[name])
        for other in NAMES[rank + 1 :]:
            theirs = _detailed(splits[other])
            pairs += [(mine[i], name, theirs[j], other) for i, j in _close(mine, theirs)]
    return pairs


def _detailed(images: Sequence[Verified]) -> list[Verified]:
    return [image for image in images if image.thumbnail.std() >= DETAIL]


def _close(left: Sequence[Verified], right: Sequence[Verified]) -> Iterator[tuple[int, int]]:
    hashes = _hashes(right)
    for start in range(0, len(left), _CHUNK):
        distance = np.bitwise_count(_hashes(left[start : start + _CHUNK])[:, None] ^ hashes[None, :])  # [chunk, right]
        for row, column in np.argwhere(distance <= HASH_BITS).tolist():
            one, other = left[start + row], right[column]
            difference = np.abs(one.thumbnail.astype(np.int16) - other.thumbnail).mean()
            if difference <= GREY_LEVELS and one.sha256 != other.sha256:
                yield start + row, column


def _hashes(images: Sequence[Verified]) -> NDArray[np.uint64]:
    return np.array([image.dhash for image in images], np.uint64)
