"""What the tests of Prepare put into a data set, and read from its report."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

Add = Callable[[str, bytes], None]
Prepare = Callable[..., dict[str, Any]]
Refused = Callable[..., str]

SPLITS = ("train", "valid", "test")


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def tar(path: Path, members: list[tuple[str, bytes]], **how: Any) -> None:
    """Write files of these names and bytes; `how` is tarfile's."""
    with tarfile.open(path, "w", **how) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def left_out(report: dict[str, Any]) -> dict[str, str]:
    """Reasons by name."""
    assert report["left_out"]["count"] == len(report["left_out"]["files"])
    return {file["name"]: file["reason"] for file in report["left_out"]["files"]}


def sizes(report: dict[str, Any]) -> list[int]:
    """Images in train, valid and test."""
    return [report["splits"][name]["images"] for name in SPLITS]
