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

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
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
    """`splits` are the canonical names present (none for a plain tree); `left_out` counts files that are no images."""

    images: tuple[Image, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(image.size for image in self.images)


def scan_folder(folder: Path) -> Tree:
    """Return the images of `folder`, sorted by name; raise KennelError for a tree that could not be trained on."""
    if not folder.exists():
        raise KennelError(f"{folder} does not exist.")
    if not folder.is_dir():
        raise KennelError(f"{folder} is a file; {_LAYOUT}.")
    found = sorted(_walk(folder, ""), key=lambda image: image.name)
    images = tuple(image for image in found if Path(image.name).suffix.lower() in SUFFIXES)
    if not images:
        raise KennelError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}); {_LAYOUT}.")
    splits = _splits(folder)
    for image in images:
        if image.name.count("/") < (2 if splits else 1):
            raise KennelError(f"{image.name} lies in no class folder; {_LAYOUT}.")
    classes = _classes(folder, images, splits)
    kept = set(images)
    return Tree(images, classes, splits, tuple(image.name for image in found if image not in kept))


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
        if entry.name.startswith(".") or entry.name in {"__MACOSX", "Thumbs.db", "desktop.ini"}:
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


def _splits(folder: Path) -> tuple[str, ...]:
    """Return the canonical names of the split folders, none for a tree of class folders."""
    folders = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX"))]
    named = [path for path in folders if path.name.lower() in SPLITS]
    others = sorted(path.name for path in folders if path not in named)
    if named and others:
        raise KennelError(f"{others[0]} lies beside {named[0].name}; {_LAYOUT}, not both.")
    splits = sorted(SPLITS[path.name.lower()] for path in named)
    if len(set(splits)) < len(splits):
        raise KennelError(f"{folder} has two folders for one split ({', '.join(sorted(path.name for path in named))}).")
    if splits and "train" not in splits:
        raise KennelError(f"{folder} has {', '.join(splits)} but no train folder; {_LAYOUT}.")
    return tuple(splits)


def _classes(folder: Path, images: tuple[Image, ...], splits: tuple[str, ...]) -> tuple[str, ...]:
    depth = 1 if splits else 0
    classes: dict[str, set[str]] = {}
    for image in images:
        parts = image.name.split("/")
        classes.setdefault(parts[depth], set()).add(SPLITS.get(parts[0].lower(), "") if splits else "train")
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
        if path.is_dir() and not path.name.startswith((".", "__MACOSX")) and path.name not in classes:
            raise KennelError(f"Class folder {path.relative_to(folder)} holds no images; fill it or remove it.")
