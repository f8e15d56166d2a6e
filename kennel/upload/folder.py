"""A tree of class folders, checked before anything of it is sent."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from kennel.errors import KennelError
from training.layout import SUFFIXES, clutter, split_folders, unused

_LAYOUT = "the layout must be FOLDER/<class>/<image> or FOLDER/{train,valid,test}/<class>/<image>"


@dataclass(frozen=True)
class Image:
    """`name` is the path below the folder with slashes; `modified` (ns) tells whether the file changed since."""

    path: Path
    name: str
    size: int
    modified: int
    sha256: str = ""


@dataclass(frozen=True)
class Tree:
    """`splits` are the canonical names present (none for a plain tree); `left_out` are files that are no images."""

    images: tuple[Image, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(image.size for image in self.images)

    @property
    def unused(self) -> str:
        """Return what is left out by kind, with what to do; nothing where nothing is."""
        return unused(self.left_out)


def scan_folder(folder: Path) -> Tree:
    """Return the images of `folder`, sorted by name; raise KennelError for a tree that could not be trained on."""
    if not folder.exists():
        raise KennelError(f"{folder} does not exist.")
    if not folder.is_dir():
        raise KennelError(f"{folder} is a file; {_LAYOUT}.")
    found = sorted(_walk(folder, ""), key=lambda image: image.name)
    images = tuple(image for image in found if Path(image.name).suffix.lower() in SUFFIXES)
    if not images:
        others = f" Not used: {others}." if (others := unused(image.name for image in found)) else ""
        raise KennelError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}); {_LAYOUT}.{others}")
    splits = _splits(folder, images)
    for image in images:
        if image.name.count("/") < (2 if splits else 1):
            raise KennelError(f"{image.name} lies in no class folder; {_LAYOUT}.")
    classes = _classes(folder, images, splits)
    kept = set(images)
    left_out = tuple(image.name for image in found if image not in kept)
    return Tree(images, classes, tuple(sorted(set(splits.values()))), left_out)


def with_hashes(tree: Tree, progress: Callable[[int], None]) -> Tree:
    """Return the tree with each image's SHA-256; `progress` takes the bytes of each image that was read."""

    def hashed(image: Image) -> Image:
        with readable(image.name), image.path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        progress(image.size)
        return replace(image, sha256=sha256)

    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter's lock
        return replace(tree, images=tuple(pool.map(hashed, tree.images)))


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what the file system refuses inside the block into a KennelError that names the file."""
    try:
        yield
    except OSError as error:
        raise KennelError(f"{name} cannot be read ({error.strerror or error}).") from error


def _walk(folder: Path, prefix: str) -> Iterator[Image]:
    with readable(prefix or str(folder)):
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        if clutter(entry.name):
            continue
        _check_name(name)
        if entry.is_symlink():
            raise KennelError(f"{name} is a symbolic link, which a data set cannot hold; copy the tree with `cp -rL`.")
        if entry.is_dir():
            yield from _walk(Path(entry.path), name + "/")
        else:
            yield _image(Path(entry.path), name)


def _image(path: Path, name: str) -> Image:
    with readable(name):
        about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise KennelError(f"{name} is no regular file; take it out of the folder.")
    if not os.access(path, os.R_OK):
        raise KennelError(f"{name} cannot be read (Permission denied).")
    return Image(path, name, about.st_size, about.st_mtime_ns)


def _check_name(name: str) -> None:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise KennelError(f"{name!a} is no UTF-8 file name; rename it.") from None
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise KennelError(f"{name!a} has a control character in its name; rename it.")


def _splits(folder: Path, images: tuple[Image, ...]) -> dict[str, str]:
    """Return the canonical name of each split folder, nothing for a tree of class folders."""
    try:
        splits = split_folders([image.name.split("/") for image in images])
    except ValueError as error:
        raise KennelError(str(error)) from None
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir() and not clutter(path.name))
    others = [name for name in folders if name not in splits]
    if splits and others:
        raise KennelError(f"{others[0]} lies beside {min(splits)}; {_LAYOUT}, not both.")
    if len(set(splits.values())) < len(splits):
        raise KennelError(f"{folder} has two folders for one split ({', '.join(sorted(splits))}).")
    if splits and "train" not in splits.values():
        raise KennelError(f"{folder} has {', '.join(sorted(splits))} but no train folder; {_LAYOUT}.")
    return splits


def _classes(folder: Path, images: tuple[Image, ...], splits: dict[str, str]) -> tuple[str, ...]:
    depth = 1 if splits else 0
    classes: dict[str, set[str]] = {}
    for image in images:
        parts = image.name.split("/")
        classes.setdefault(parts[depth], set()).add(splits.get(parts[0], "train"))
    if len(classes) < 2:
        inner = f" Did you mean {folder / next(iter(classes))}?" if not splits and images[0].name.count("/") > 1 else ""
        raise KennelError(f"{folder} has images of one class only ({next(iter(classes))}); two are the least.{inner}")
    for name, where in sorted(classes.items()):
        if "train" not in where:
            raise KennelError(f"Class {name} has images in {', '.join(sorted(where))} but none in train.")
    _refuse_empty(folder, set(classes), depth)
    return tuple(sorted(classes))


def _refuse_empty(folder: Path, classes: set[str], depth: int) -> None:
    for path in sorted(folder.glob("*/" * depth + "*/")):
        if path.is_dir() and not clutter(path.name) and path.name not in classes:
            raise KennelError(f"Class folder {path.relative_to(folder)} holds no images; fill it or remove it.")
