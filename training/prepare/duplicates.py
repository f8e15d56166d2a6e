"""Finds images that are in two splits or in two classes: with the same bytes, or showing nearly the same."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError
from training.prepare.splits import NAMES, Splits
from training.prepare.verify import Verified

HASH_BITS = 4  # of 64 bits that may differ
GREY_LEVELS = 2.5  # of 255, mean difference of the thumbnails
DETAIL = 4.0  # grey levels, standard deviation; flatter images all have similar hashes
_CELLS = 4_000_000  # pairs of hashes that are compared at a time: 32 MB
_PROPOSED = 200  # candidates for one image: of simple patterns thousands have similar hashes
_NAMED = 12

Pair = tuple[Verified, str, Verified, str]  # an image and its split, the other image and its more protected split


@dataclass(frozen=True)
class Unique:
    """Images without copies in their split, and those that were taken out.

    `copies` are (image, the one with the same bytes that is kept). The images of a group of `contradictory` have the
    same bytes in several classes: at least one label is wrong, so none of them is kept.
    """

    kept: list[Verified]
    copies: list[tuple[Verified, Verified]]
    contradictory: list[list[Verified]]

    @property
    def left_out(self) -> list[tuple[str, str]]:
        """Return names and reasons."""
        entries = [(image.name, f"has the same bytes as {kept.name}, which is kept") for image, kept in self.copies]
        for group in self.contradictory:
            labels = ", ".join(sorted({image.found.label for image in group}))
            entries += [(image.name, f"has the same bytes in several classes ({labels})") for image in group]
        return entries


def unique(images: Sequence[Verified]) -> Unique:
    """Return one of the images with the same bytes in a split, and none if they are in several classes."""
    groups: dict[str, list[Verified]] = defaultdict(list)
    for image in images:
        groups[image.sha256].append(image)
    contradictory = [group for group in groups.values() if len({image.found.label for image in group}) > 1]
    first: dict[tuple[str, str], Verified] = {}
    for image in images:
        first.setdefault((image.sha256, image.found.split), image)
    twins = [(image, first[image.sha256, image.found.split]) for image in images]
    wrong = {group[0].sha256 for group in contradictory}
    return Unique(
        kept=[image for image, twin in twins if image is twin and image.sha256 not in wrong],
        copies=[(image, twin) for image, twin in twins if image is not twin and image.sha256 not in wrong],
        contradictory=contradictory,
    )


def refuse_same_names(images: Sequence[Verified]) -> None:
    """Raise TrainingError for different images of one name: a prepared split could contain only one of them."""
    seen: dict[str, Verified] = {}
    for image in images:
        other = seen.setdefault(image.name, image)
        if other.sha256 != image.sha256:
            shards = " and ".join(sorted({other.found.source.file.name, image.found.source.file.name}))
            raise TrainingError(
                f"{image.name} is there twice with different bytes ({shards}); give each image a name of its own."
            )


def identical(splits: Splits) -> list[Pair]:
    """Return each image whose bytes are in a more protected split too (train < valid < test)."""
    pairs = []
    for rank, name in enumerate(NAMES):
        protected = {image.sha256: (image, other) for other in NAMES[rank + 1 :] for image in splits[other]}
        pairs += [(image, name, *protected[image.sha256]) for image in splits[name] if image.sha256 in protected]
    return pairs


def without(splits: Splits, pairs: Sequence[Pair]) -> Splits:
    """Return the splits without the less protected image of each pair."""
    losing = {id(pair[0]) for pair in pairs}
    return {name: [image for image in images if id(image) not in losing] for name, images in splits.items()}


def failure(pairs: Sequence[Pair]) -> TrainingError:
    """Return the error: how many and what to do come first, then as many names as fit into a job's message."""
    named = "; ".join(f"{image.name} ({split}) = {other.name} ({its})" for image, split, other, its in pairs[:_NAMED])
    count = f"{len(pairs):,} images are" if len(pairs) > 1 else "An image is"
    return TrainingError(
        f"{count} byte for byte in two splits, so the measured accuracy would be too good. Delete one of each, or set "
        "the pipeline parameter Duplicates=remove (--duplicates remove), which drops the copy in train (of valid and "
        f"test: in valid). prepare.json and the job's log name all; the first: {named}."
    )


def near(splits: Splits) -> list[Pair]:
    """Return images that show nearly the same as one in a more protected split, but have other bytes.

    A 64-bit difference hash proposes and a 16 x 16 thumbnail decides. Every pair across splits is compared: 2,000
    against 8,000 images take about a tenth of a second, so no index is worth its code.
    """
    pairs: list[Pair] = []
    for rank, name in enumerate(NAMES):
        mine = _detailed(splits[name])
        for other in NAMES[rank + 1 :]:
            theirs = _detailed(splits[other])
            pairs += [(one, name, twin, other) for one, twin in _close(mine, theirs)]
    return pairs


def _detailed(images: Sequence[Verified]) -> list[Verified]:
    return [image for image in images if image.thumbnail.std() >= DETAIL]


def _close(left: Sequence[Verified], right: Sequence[Verified]) -> Iterator[tuple[Verified, Verified]]:
    mine, theirs = _hashes(left), _hashes(right)
    thumbnails = np.array([image.thumbnail for image in right])  # [right, 16, 16]
    rows = max(1, _CELLS // max(1, len(right)))
    for start in range(0, len(left), rows):
        proposed = np.bitwise_count(mine[start : start + rows, None] ^ theirs) <= HASH_BITS  # [rows, right]
        for row in np.flatnonzero(proposed.any(1)).tolist():
            one, columns = left[start + row], np.flatnonzero(proposed[row])[:_PROPOSED]
            difference = np.abs(thumbnails[columns].astype(np.int16) - one.thumbnail).mean((1, 2))  # [columns]
            alike = (right[column] for column in columns[difference <= GREY_LEVELS].tolist())
            if twin := next((other for other in alike if other.sha256 != one.sha256), None):
                yield one, twin


def _hashes(images: Sequence[Verified]) -> NDArray[np.uint64]:
    return np.array([image.dhash for image in images], np.uint64)
