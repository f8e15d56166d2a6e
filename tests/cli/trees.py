"""Trees of class folders for the tests of the command."""

import io
from pathlib import Path

import numpy as np
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


def photographs(folder: Path, count: int = 60) -> Path:
    """Two classes, bright and dark, as real JPEGs of 40 x 40."""
    random = np.random.default_rng(0)
    for number in range(count):
        name, low = ("bright", 160) if number % 2 else ("dark", 0)
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(low, low + 90, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number}.jpg")
    return folder
