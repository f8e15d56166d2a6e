"""The evaluation transform: the same numbers as training/transform.py and torchvision; tests/test_parity.py says so."""

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
    if how.interpolation is Image.Resampling.BILINEAR:
        # Only what is kept is computed, a third less work. Pillow holds the box in 32-bit floats, so a value that lies
        # halfway may round to its neighbour, one of 255; steeper filters would differ by more.
        across, down = picture.width / width, picture.height / height
        box = (left * across, top * down, min(right * across, picture.width), min(bottom * down, picture.height))
        return np.asarray(picture.resize((how.crop, how.crop), how.interpolation, box))
    return np.asarray(picture.resize((width, height), how.interpolation).crop((left, top, right, bottom)))


def normalized(pixels: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.float32]:
    """uint8 [crop, crop, 3] as the network's float32 [1, 3, crop, crop], for runtimes that do not do it themselves."""
    shares = np.asarray(pixels, np.float32) / np.float32(255)
    values = (shares - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[np.newaxis])
