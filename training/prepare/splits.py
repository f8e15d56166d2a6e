"""Gives every image a split: the tree's own, or a seeded, stratified one where the tree has none."""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from training.errors import TrainingError
from training.prepare.verify import Verified

NAMES = ("train", "valid", "test")
Splits = dict[str, list[Verified]]


def assign(images: Sequence[Verified], *, valid_share: float, test_share: float, seed: int) -> Splits:
    """Return the images by split. A missing valid or test is cut from train: the given share of each class.

    Byte-identical images stay together, so a split that is made here leaks nothing. A class of two images gives none
    away, a larger one gives at least one. Raises TrainingError if there is nothing to train on.
    """
    splits: Splits = {name: [] for name in NAMES}
    for image in images:
        splits[image.found.split or "train"].append(image)
    if images and not splits["train"]:
        raise TrainingError("The data set has no train folder; add one, or use class folders without any splits.")
    shares = {"test": test_share, "valid": valid_share}
    shares = {name: share for name, share in shares.items() if not splits[name]}
    if shares:
        kept: list[Verified] = []
        for label, members in sorted(_by_class(splits["train"]).items()):
            given = _cut(members, shares, random.Random(f"{seed}/{label}"))
            for name in shares:
                splits[name].extend(given[name])
            kept.extend(given["train"])
        splits["train"] = kept
    return splits


def check_classes(splits: Mapping[str, Sequence[Verified]]) -> list[str]:
    """Return the sorted classes; raises TrainingError unless there are two and each can be learned."""
    classes = {name: {image.found.label for image in images} for name, images in splits.items()}
    every = sorted(set().union(*classes.values()))
    if not every:
        raise TrainingError("The data set holds no readable image in a class folder; expected <class>/<image>.jpg.")
    if len(every) < 2:
        raise TrainingError(f"The data set has one class only ({every[0]}); a classifier needs at least two.")
    for name in ("test", "valid"):
        if unlearned := sorted(classes[name] - classes["train"]):
            raise TrainingError(
                f"{len(unlearned)} classes are in {name} but have no readable image in train "
                f"({', '.join(unlearned[:5])}); add images of them to train or remove them."
            )
        if not splits[name]:
            raise TrainingError(f"No image is left for {name}: give each class at least three different images.")
    return every


def absent(splits: Mapping[str, Sequence[Verified]], classes: Iterable[str]) -> list[str]:
    """Return a warning for each split that knows nothing of some classes."""
    warnings = []
    for name in ("valid", "test"):
        if missing := sorted(set(classes) - {image.found.label for image in splits[name]}):
            shown = ", ".join(missing[:5])
            warnings.append(f"{len(missing)} classes have no image in {name} and are not measured there: {shown}")
    return warnings


def _cut(members: Sequence[Verified], shares: Mapping[str, float], rng: random.Random) -> Splits:
    groups = defaultdict(list)
    for image in members:
        groups[image.sha256].append(image)
    order = sorted(groups)  # by content, so that names and shard order do not move images
    rng.shuffle(order)
    given: Splits = {"train": []}
    for name, share in shares.items():
        count = max(1, round(share * len(groups))) if len(groups) > 2 else 0
        given[name] = [image for key in order[:count] for image in groups[key]]
        order = order[count:]
    given["train"] = [image for key in order for image in groups[key]]
    return given


def _by_class(images: Iterable[Verified]) -> dict[str, list[Verified]]:
    classes: dict[str, list[Verified]] = defaultdict(list)
    for image in images:
        classes[image.found.label].append(image)
    return classes
