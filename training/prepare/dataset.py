"""Finds the images of a data set, plain or in tar shards, each with the class and split that its path names.

No archive is ever extracted, so that no name in one can do harm.
"""

import os
import tarfile
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NoReturn

from training.errors import TrainingError
from training.layout import NOT_READ, OTHER_SUFFIXES, SPLITS, SUFFIXES, clutter, split_folders

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip", ".7z", ".rar")
_CONTROL = ("Cc", "Cs", "Zl", "Zp")  # would break a line of the log, or cannot be written as UTF-8

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Where a file's bytes are; `name` is its path in the class-folder tree."""

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
    name: str  # the path from the class folder on


@dataclass(frozen=True)
class Listing:
    """All images of a data set, and what is not among them."""

    images: tuple[Found, ...]
    labels: frozenset[str]  # of all class folders, those without images too
    left_out: tuple[tuple[str, str], ...]  # (name, reason)
    ignored: int  # files whose names are not those of images


@dataclass(frozen=True)
class _Files:
    """Files, folders and (name, reason) of what is left out; folders are paths as the names of files are."""

    files: list[Source] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def list_images(folder: Path) -> Listing:
    """Return the images below `folder`, in the order of their names; hidden files are ignored.

    Raise TrainingError for a tree without class folders, and wherever images would be lost without anybody noticing: an
    archive that is compressed, broken or inside another one, a folder that cannot be read.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is missing; give the job a data set as the input `dataset`.")
    inside = _list_files(folder)
    left_out = [*inside.left_out, *_unread(inside.files)]
    images = [source for source in inside.files if _suffix(source) in SUFFIXES]
    others = [source for source in inside.files if _suffix(source) not in SUFFIXES]
    names = [PurePosixPath(image.name).parts for image in images]
    root = _common_root(names)
    splits = _splits_of([parts[len(root) :] for parts in names])
    found = []
    for source, parts in zip(images, names, strict=True):
        path = parts[len(root) :]
        split = splits.get(path[0], "")
        path = path[1:] if split else path
        if len(path) < 2:
            left_out.append((source.name, "is not in a class folder"))
        else:
            found.append(Found(source, split, path[0], "/".join(path)))
    _refuse_mixed_trees(found)
    folders = [PurePosixPath(name).parts for name in inside.folders]
    folders += [PurePosixPath(other.name).parts[:-1] for other in others]
    labels = _labels(folders, root, splits) | {image.label for image in found}
    return Listing(tuple(found), frozenset(labels), tuple(left_out), len(others))


def _suffix(source: Source) -> str:
    return PurePosixPath(source.name).suffix.lower()


def _unread(files: Iterable[Source]) -> list[tuple[str, str]]:
    return [(file.name, NOT_READ) for file in files if _suffix(file) in OTHER_SUFFIXES]


def _splits_of(names: Sequence[Parts]) -> dict[str, str]:
    try:
        return split_folders(names)
    except ValueError as error:
        raise TrainingError(str(error)) from None


def _common_root(names: Sequence[Parts]) -> Parts:
    """Return the folders around the whole tree (`dogs/train/...`); a single class folder is not such a root."""
    root: Parts = ()
    while names and len({parts[0] for parts in names}) == 1:
        if names[0][0].lower() in SPLITS or min(len(parts) for parts in names) < 3:
            break
        root = (*root, names[0][0])
        names = [parts[1:] for parts in names]
    return root


def _labels(folders: Iterable[Parts], root: Parts, splits: Mapping[str, str]) -> set[str]:
    inside = {parts[len(root) :] for parts in folders if parts[: len(root)] == root} - {()}
    paths = {parts[1:] if splits and parts[0].lower() in SPLITS else parts for parts in inside} - {(), ("weights",)}
    return {path[0] for path in paths}


def _refuse_mixed_trees(found: Iterable[Found]) -> None:
    without = sorted({image.label for image in found if not image.split})
    splits = sorted({image.split for image in found if image.split})
    if without and splits:
        raise TrainingError(
            f"The data set has the splits {', '.join(splits)} and beside them the class folders "
            f"{', '.join(without[:5])}: put every class folder into a split, or use no splits at all."
        )


def _list_files(folder: Path) -> _Files:
    found = _Files()
    for root, folders, files in os.walk(folder, onerror=_refuse):  # does not follow links to folders
        folders[:] = [name for name in folders if not clutter(name)]
        for name in folders:
            _add(Path(root, name), folder, found)
        for name in files:
            if not clutter(name):
                _add(Path(root, name), folder, found)
    found.files.sort(key=lambda source: source.name)
    return found


def _refuse(error: OSError) -> NoReturn:
    raise TrainingError(f"{printable(str(error.filename))} cannot be read: {error.strerror}.") from error


def _add(path: Path, folder: Path, found: _Files) -> None:
    name = printable(path.relative_to(folder).as_posix())
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        found.left_out.append((name, "is a link or a special file"))
    elif path.is_dir():
        found.folders.append(name)
    elif name.lower().endswith(_COMPRESSED):
        raise TrainingError(f"{name} is compressed; pack the images as an uncompressed .tar.")
    elif name.lower().endswith(".tar"):
        _add_members(path, name, found)
    else:
        found.files.append(Source(path, 0, path.stat().st_size, name))


def _add_members(path: Path, shard: str, found: _Files) -> None:
    try:
        with path.open("rb") as stream:
            with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
                for member in archive:
                    _add_member(member, path, shard, found)
                    archive.members.clear()  # type: ignore[attr-defined]  # a million of them are a gigabyte
            _require_end(stream, archive.offset)
    # Beside its own errors tarfile lets some of int(), bytes.decode() and struct through for hostile headers.
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        raise TrainingError(f"{shard} is not a complete tar archive ({error}); upload the data set again.") from None


def _require_end(stream: BinaryIO, offset: int) -> None:
    """Raise ReadError unless only zeros follow: tarfile takes any block that is not a header for the archive's end."""
    stream.seek(offset)
    end = stream.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("its end is missing")
    while end:
        if end.strip(b"\0"):
            raise tarfile.ReadError(f"what follows byte {offset} is damaged or another archive")
        end = stream.read(2**20)


def _add_member(member: tarfile.TarInfo, path: Path, shard: str, found: _Files) -> None:
    name = printable(str(PurePosixPath(member.name)))  # without ./, // and a slash at the end
    parts = PurePosixPath(name).parts
    if any(clutter(part) for part in parts if part != ".."):
        return
    if name.startswith("/") or ".." in parts:
        found.left_out.append((name, "has a path that leads out of the archive"))
    elif member.isdir():
        found.folders.append(name)
    elif not member.isfile() or member.issparse():
        found.left_out.append((name, "is a link or a special file"))
    elif name.lower().endswith((".tar", *_COMPRESSED)):
        raise TrainingError(f"{shard} contains another archive, {name}; pack the images themselves.")
    else:
        found.files.append(Source(path, member.offset_data, member.size, name))


def printable(name: str) -> str:
    """Return `name` with escapes (`h\\xe9`) for what is not UTF-8 and for control characters; other names unchanged."""
    if name.isprintable():
        return name
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        one.encode("unicode_escape").decode("ascii") if unicodedata.category(one) in _CONTROL else one for one in text
    )
