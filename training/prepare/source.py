"""Finds the images of a data set, in tar shards or as plain files. Nothing is ever extracted, so no name can harm."""

import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from training.errors import TrainingError

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}


@dataclass(frozen=True)
class Source:
    """Where an image's bytes lie; `name` is its path in the class-folder tree."""

    file: Path
    offset: int
    size: int
    name: str

    def read(self) -> bytes:
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


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
    left_out: tuple[tuple[str, str], ...]  # (name, reason)
    ignored: int  # files that do not claim to be images


def list_images(folder: Path) -> Listing:
    """List the images below `folder`; raises TrainingError for a broken tar or a tree without class folders."""
    if not folder.is_dir():
        raise TrainingError(f"{folder} is missing; give the job a data set as the input `dataset`.")
    left_out: list[tuple[str, str]] = []
    entries = sorted(_entries(folder, left_out), key=lambda source: source.name)
    images = [source for source in entries if PurePosixPath(source.name).suffix.lower() in SUFFIXES]
    found = []
    for source, parts in zip(images, _without_common_root([_parts(image.name) for image in images]), strict=True):
        split = SPLITS.get(parts[0].lower(), "") if len(parts) > 2 else ""
        if len(parts) < 2 or (not split and parts[0].lower() in SPLITS):
            left_out.append((source.name, "lies in no class folder"))
        else:
            inside = parts[1:] if split else parts
            found.append(Found(source, split, inside[0], "/".join(inside)))
    _refuse_mixed_trees(found)
    return Listing(tuple(found), tuple(left_out), len(entries) - len(images))


def _entries(folder: Path, left_out: list[tuple[str, str]]) -> Iterator[Source]:
    for root, folders, files in os.walk(folder):  # does not follow links to folders
        folders[:] = [name for name in folders if not _hidden(name)]
        for name in files:
            path = Path(root, name)
            relative = _printable(str(path.relative_to(folder)))
            if _hidden(name):
                continue
            if path.is_symlink() or not path.is_file():
                left_out.append((relative, "is a link or a special file"))
            elif name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")):
                raise TrainingError(f"{relative} is compressed; pack the images as an uncompressed .tar.")
            elif name.lower().endswith(".tar"):
                yield from _members(path, relative, left_out)
            else:
                yield Source(path, 0, path.stat().st_size, relative)


def _members(path: Path, relative: str, left_out: list[tuple[str, str]]) -> Iterator[Source]:
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = _printable(member.name).removeprefix("./")
                if member.isdir() or any(_hidden(part) for part in PurePosixPath(name).parts if part != ".."):
                    continue
                if not member.isfile() or member.issparse():
                    left_out.append((name, "is a link or a special file"))
                elif name.startswith("/") or ".." in PurePosixPath(name).parts:
                    left_out.append((name, "has a path that leads out of the archive"))
                else:
                    yield Source(path, member.offset_data, member.size, name)
    # Beside its own errors tarfile lets some of int(), bytes.decode() and struct through for hostile headers.
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        raise TrainingError(f"{relative} is no whole tar archive ({error}); upload the data set again.") from None


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts


def _without_common_root(names: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Drop a folder around the whole tree (`dogs/train/...`); one lone class folder is no such root."""
    while names and len({parts[0] for parts in names}) == 1:
        if names[0][0].lower() in SPLITS or min(len(parts) for parts in names) < 3:
            break
        names = [parts[1:] for parts in names]
    return names


def _refuse_mixed_trees(found: Iterable[Found]) -> None:
    without = sorted({image.label for image in found if not image.split})
    splits = sorted({image.split for image in found if image.split})
    if without and splits:
        raise TrainingError(
            f"The data set holds {', '.join(splits)} and beside them the class folders {', '.join(without[:5])}: "
            "put every class folder into a split, or use no splits at all."
        )


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _printable(name: str) -> str:
    """Names that are not UTF-8 arrive with surrogates, which JSON files and terminals refuse."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
