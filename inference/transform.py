"""The evaluation transform: the same numbers as training/transform.py and torchvision; tests/test_parity.py says so."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.artifact import Preprocessing


def resized(width: int, height: int, shorter: int) -> tuple[int, int]:
    """(width, height) in pixels after the shorter side became `shorter`; the longer is cut, as torchvision does."""
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def to_pixels(picture: Image.Image, how: Preprocessing) -> NDArray[np.uint8]:
    """An RGB picture as uint8 [crop, crop, 3]."""
    width, height = resized(*picture.size, how.resize)
    # round() takes halves to the even number, as in torchvision's center_crop.
    left, top = round((width - how.crop) / 2), round((height - how.crop) / 2)
    right, bottom = left + how.crop, top + how.crop
    if how.interpolation is Image.Resampling.BILINEAR:  # steeper filters would differ by more
        return _kept_part(picture, how.crop, left, top, picture.width / width, picture.height / height)
    return np.asarray(picture.resize((width, height), how.interpolation).crop((left, top, right, bottom)))


def _kept_part(picture: Image.Image, crop: int, left: int, top: int, across: float, down: float) -> NDArray[np.uint8]:
    """Resized, but only where it is kept: half the work. `across` and `down`: old pixels in a new one.

    First across, then down, as Pillow resizes whole pictures; of a part it may choose the other order, which rounds
    otherwise. It holds the edges in 32-bit floats, so one value in two thousand differs by one of 255.
    """
    reach = max(down, 1.0)  # of the filter, in old pixels
    first = max(0, math.floor(top * down - reach))
    last = min(picture.height, math.ceil((top + crop) * down + reach))
    rows = picture.crop((0, first, picture.width, last))
    # A sum of floats may lie a hair outside of the picture.
    right, bottom = min((left + crop) * across, rows.width), min((top + crop) * down - first, rows.height)
    narrow = rows.resize((crop, rows.height), Image.Resampling.BILINEAR, (left * across, 0, right, rows.height))
    return np.asarray(narrow.resize((crop, crop), Image.Resampling.BILINEAR, (0, top * down - first, crop, bottom)))


def normalized(pixels: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.float32]:
    """uint8 [crop, crop, 3] as the network's float32 [1, 3, crop, crop], for runtimes that do not do it themselves."""
    shares = np.asarray(pixels, np.float32) / np.float32(255)
    values = (shares - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[np.newaxis])
