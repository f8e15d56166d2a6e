"""What the names of a data set's folders and files mean: splits, classes, pictures, and what is neither.

Prepare and the operator's commands read a data set by these rules. Standard library only: `kennel` imports this.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
OTHER_SUFFIXES = {".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".ico", ".dng", ".cr2", ".nef", ".arw"}
NOT_READ = "is an image of a format that is not read; convert it to JPEG or PNG"
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "holdout"), "test"),
}
# What machines and programs put beside photographs; hidden files and folders (.DS_Store, ._1.jpg) go without a list.
_CLUTTER = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"}
_NAMED = 5


def clutter(name: str) -> bool:
    """Return whether a file or folder is neither data nor worth a word."""
    return name.startswith(".") or name.lower() in _CLUTTER


def split_folders(images: Iterable[Sequence[str]]) -> dict[str, str]:
    """Return the split of each top folder, nothing for a tree of class folders; `images` are the parts of paths.

    A split holds folders and a class holds pictures. Raise ValueError with a sentence for top folders that are splits
    under names that nobody knows, and for splits without classes.
    """
    inside: dict[str, set[str]] = defaultdict(set)  # top folder: its sub-folders
    for parts in images:
        if len(parts) > 1:
            inside[parts[0]].update(parts[1:-1][:1] or [""])
    known = {top: SPLITS[top.lower()] for top in inside if top.lower() in SPLITS}
    if any(inside[top] - {""} for top in known):
        return known
    if inside and len(known) == len(inside):
        raise ValueError(f"{few(sorted(known))} hold pictures and no class folders; expected <split>/<class>/<image>.")
    shared = set.intersection(*inside.values()) if len(inside) > 1 else set()
    if len(shared) > 1 and not any("" in folders for folders in inside.values()):
        raise ValueError(
            f"The folders {few(sorted(inside))} all hold {few(sorted(shared))}: if they are splits, call them train, "
            "valid and test; if they are the classes, put their pictures directly into them."
        )
    return {}


def unused(names: Iterable[str]) -> str:
    """Return how many files of which kind are not used, and what to do; nothing where there are none."""
    kinds = Counter(PurePosixPath(name).suffix.lower() for name in names)
    read = {kind: count for kind, count in kinds.items() if kind in OTHER_SUFFIXES}
    said = [f"{_counted(read)}: pictures of kinds that are not read; convert them to JPEG or PNG"] if read else []
    others = {kind: count for kind, count in kinds.items() if kind not in OTHER_SUFFIXES}
    return "; ".join([*said, *([f"{_counted(others)}: no pictures by their names"] if others else [])])


def _counted(kinds: dict[str, int]) -> str:
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {kind.removeprefix('.').upper() or 'without a suffix'}" for kind, count in ordered)


def few(names: Sequence[str]) -> str:
    """Return the first names as a text."""
    return ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")
