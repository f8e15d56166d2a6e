"""Reads what the paths of a data set say: its images, each with class and split."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from training.errors import TrainingError
from training.prepare.files import Source as Source
from training.prepare.files import contents

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
OTHER_SUFFIXES = {".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".ico", ".dng", ".cr2", ".nef", ".arw"}
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """An image with what its path says; `split` is empty where the tree has no splits."""

    source: Source
    split: str
    label: str
    name: str  # class folder first, without the split


@dataclass(frozen=True)
class Listing:
    images: tuple[Found, ...]
    labels: frozenset[str]  # of all class folders, those without images too
    left_out: tuple[tuple[str, str], ...]  # (name, reason)
    ignored: int  # files that do not claim to be images


def list_images(folder: Path) -> Listing:
    """List the images below `folder`; raises TrainingError for a broken tar or a tree without class folders."""
    if not folder.is_dir():
        raise TrainingError(f"{folder} is missing; give the job a data set as the input `dataset`.")
    inside = contents(folder)
    left_out = [*inside.left_out, *_unread(inside.files)]
    images = [source for source in inside.files if _suffix(source) in SUFFIXES]
    others = [source for source in inside.files if _suffix(source) not in SUFFIXES]
    names = [PurePosixPath(image.name).parts for image in images]
    root = _common_root(names)
    found = []
    for source, parts in zip(images, names, strict=True):
        split, path = _split(parts[len(root) :])
        if len(path) < 2 or (not split and path[0].lower() in SPLITS):
            left_out.append((source.name, "lies in no class folder"))
        else:
            found.append(Found(source, split, path[0], "/".join(path)))
    _refuse_mixed_trees(found)
    folders = [PurePosixPath(name).parts for name in inside.folders]
    folders += [PurePosixPath(other.name).parts[:-1] for other in others]
    labels = _labels(folders, root) | {image.label for image in found}
    return Listing(tuple(found), frozenset(labels), tuple(left_out), len(others))


def _suffix(source: Source) -> str:
    return PurePosixPath(source.name).suffix.lower()


def _unread(files: Iterable[Source]) -> list[tuple[str, str]]:
    reason = "is a picture of a kind that is not read; convert it to JPEG or PNG"
    return [(file.name, reason) for file in files if _suffix(file) in OTHER_SUFFIXES]


def _split(parts: Parts) -> tuple[str, Parts]:
    """Return the split that a path names, perhaps none, and the path inside it."""
    split = SPLITS.get(parts[0].lower(), "") if len(parts) > 2 else ""
    return split, parts[1:] if split else parts


def _common_root(names: Sequence[Parts]) -> Parts:
    """Return the folders around the whole tree (`dogs/train/...`); one lone class folder is no such root."""
    root: Parts = ()
    while names and len({parts[0] for parts in names}) == 1:
        if names[0][0].lower() in SPLITS or min(len(parts) for parts in names) < 3:
            break
        root = (*root, names[0][0])
        names = [parts[1:] for parts in names]
    return root


def _labels(folders: Iterable[Parts], root: Parts) -> set[str]:
    inside = {parts[len(root) :] for parts in folders if parts[: len(root)] == root} - {()}
    paths = {parts[1:] if parts[0].lower() in SPLITS else parts for parts in inside} - {(), ("weights",)}
    return {path[0] for path in paths}


def _refuse_mixed_trees(found: Iterable[Found]) -> None:
    without = sorted({image.label for image in found if not image.split})
    splits = sorted({image.split for image in found if image.split})
    if without and splits:
        raise TrainingError(
            f"The data set holds {', '.join(splits)} and beside them the class folders {', '.join(without[:5])}: "
            "put every class folder into a split, or use no splits at all."
        )
