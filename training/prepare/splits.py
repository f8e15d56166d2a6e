"""Assigns every image to a split: the one that its path names, or a stratified random one if the tree has none."""

import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from training.errors import TrainingError
from training.layout import few
from training.prepare.verify import Verified

NAMES = ("train", "valid", "test")
Splits = dict[str, list[Verified]]
_SHARE = 0.1  # of each class, for a split that the tree lacks
_RATIO = 100  # of the largest class to a class


def assign(images: Sequence[Verified]) -> Splits:
    """Return the images by split; a missing valid or test takes a tenth of each class in train, the same each time.

    No two of `images` may have the same bytes in the same split: then no split that is made here has an image of
    another. A class of two images stays in train, a larger one gives at least one image. Raise TrainingError if there
    is nothing to train on.
    """
    splits: Splits = {name: [] for name in NAMES}
    for image in images:
        splits[image.found.split or "train"].append(image)
    if images and not splits["train"]:
        raise TrainingError(
            "The data set has splits, but no readable image in a train folder; add some, or use class folders alone."
        )
    missing = [name for name in ("test", "valid") if not splits[name]]
    if missing:
        kept: list[Verified] = []
        for label, members in sorted(_by_class(splits["train"]).items()):
            given = _cut(members, missing, random.Random(f"0/{label}"))
            for name in missing:
                splits[name].extend(given[name])
            kept.extend(given["train"])
        splits["train"] = kept
    return splits


def check_classes(splits: Mapping[str, Sequence[Verified]]) -> list[str]:
    """Return the sorted classes; raise TrainingError unless there are two and each has training images."""
    classes = {name: {image.found.label for image in images} for name, images in splits.items()}
    every = sorted(set().union(*classes.values()))
    if not every:
        raise TrainingError("The data set has no readable image in a class folder; expected <class>/<image>.jpg.")
    if len(every) < 2:
        raise TrainingError(f"The data set has one class only ({every[0]}); a classifier needs at least two.")
    for name in ("test", "valid"):
        if unlearned := sorted(classes[name] - classes["train"]):
            raise TrainingError(
                f"{len(unlearned)} classes are in {name} but have no readable image in train "
                f"({few(unlearned)}); add images of them to train or remove them."
            )
        if not splits[name]:
            raise TrainingError(f"No image is left for {name}: give each class at least three different images.")
    if twins := _alike(every, lambda name: unicodedata.normalize("NFC", " ".join(name.split()))):
        raise TrainingError(f"Class folders look the same, but are not ({few(twins)}); give one class one name.")
    return every


def warnings_of(splits: Mapping[str, Sequence[Verified]], classes: Sequence[str], folders: Iterable[str]) -> list[str]:
    """Return warnings: classes without images to learn or to measure, and names that may be a mistake."""
    warnings = []
    if lost := sorted(set(folders) - set(classes)):
        warnings.append(f"{len(lost)} class folders have no usable image, so the model will not know them: {few(lost)}")
    for name in ("valid", "test"):
        if missing := sorted(set(classes) - {image.found.label for image in splits[name]}):
            warnings.append(
                f"{len(missing)} classes have no image in {name} and are not measured there: {few(missing)}"
            )
    counts = {label: len(members) for label, members in _by_class(splits["train"]).items()}
    if rare := sorted(name for name in counts if counts[name] * _RATIO < max(counts.values())):
        warnings.append(
            f"{len(rare)} classes have less than a hundredth of the largest class's training images, so the model may "
            f"never answer them: {few(rare)}; add images of them"
        )
    if twins := _alike(classes, str.casefold):
        warnings.append(f"classes differ only in capital letters: {few(twins)}")
    if odd := [name for name in classes if re.search(r"\\(x[0-9a-f]{2}|[nrt]|u[0-9a-f]{4})", name)]:
        warnings.append(f"class folders have names that are not UTF-8 or not one line; rename them: {few(odd)}")
    return warnings


def _alike(names: Iterable[str], key: Callable[[str], str]) -> list[str]:
    """Return the names that share their key with another."""
    groups = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return [name for group in groups.values() if len(group) > 1 for name in group]


def _cut(members: Sequence[Verified], missing: Sequence[str], rng: random.Random) -> Splits:
    order = sorted(members, key=lambda image: image.sha256)  # so that names and shard order do not move images
    rng.shuffle(order)
    given: Splits = {}
    for name in missing:
        count = max(1, round(_SHARE * len(members))) if len(members) > 2 else 0
        given[name], order = order[:count], order[count:]
    given["train"] = order
    return given


def _by_class(images: Iterable[Verified]) -> dict[str, list[Verified]]:
    classes: dict[str, list[Verified]] = defaultdict(list)
    for image in images:
        classes[image.found.label].append(image)
    return classes
