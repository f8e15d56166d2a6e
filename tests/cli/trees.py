"""Trees of class folders for the tests of upload."""

import io
from pathlib import Path

from PIL import Image


def png(colour: str = "red") -> bytes:
    packed = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(packed, "PNG")
    return packed.getvalue()


def tree(folder: Path, *names: str) -> Path:
    """Write a picture of its own for each of `names` below `folder`."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(f"rgb({number},0,0)"))
    return folder
