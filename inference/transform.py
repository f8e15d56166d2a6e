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


def to_tensor(picture: Image.Image, how: Preprocessing) -> NDArray[np.float32]:
    """An RGB picture as float32 [3, crop, crop]."""
    width, height = resized(*picture.size, how.resize)
    scaled = picture.resize((width, height), how.interpolation)
    # round() takes halves to the even number, as in torchvision's center_crop.
    left, top = round((width - how.crop) / 2), round((height - how.crop) / 2)
    pixels = np.asarray(scaled.crop((left, top, left + how.crop, top + how.crop)), np.float32)  # [crop, crop, 3]
    values = (pixels / np.float32(255) - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1))  # [3, crop, crop]
