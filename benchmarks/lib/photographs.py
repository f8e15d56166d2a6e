"""The pictures that are sent to a server."""

import shutil
from pathlib import Path

from benchmarks.lib.pictures import write_views

_KINDS = (".jpg", ".jpeg", ".png", ".webp")


def files(folder: Path) -> list[Path]:
    """The pictures in `folder`, always in the same order."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _KINDS)


def bodies(folder: Path, photos: Path | None, *, made: int = 40) -> Path:
    """A flat folder with the pictures of `photos` as they are, or with `made` ones; raises SystemExit for none."""
    folder.mkdir(parents=True)
    if photos is None:
        write_views(folder / "scenes", None, scenes=made, train=1, valid=0)
        for place, file in enumerate(sorted((folder / "scenes" / "train").rglob("*.jpg"))):
            file.rename(folder / f"{place:03}.jpg")
        shutil.rmtree(folder / "scenes")
        return folder
    if not photos.is_dir() or not files(photos):
        raise SystemExit(f"--photos must name a folder with JPEG, PNG or WebP pictures, but {photos} is none.")
    for file in files(photos):
        shutil.copy(file, folder / file.name)
    return folder
