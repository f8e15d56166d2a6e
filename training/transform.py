"""The evaluation transform: from an encoded image to the network's input, with Pillow and numpy alone.

inference/images.py does the same arithmetic (tests/test_parity.py); its sizes and constants come from model.json.
"""

import io
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

SMALL = 64  # pixels: inputs up to this side are not cropped, since small images are framed tightly


@dataclass(frozen=True)
class Preprocessing:
    """Sizes in pixels; mean and deviation of RGB values between 0 and 1 (ImageNet's, as in torchvision's weights)."""

    resize: int
    crop: int
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @classmethod
    def for_image_size(cls, size: int) -> "Preprocessing":
        """Return the sizes for a square input of `size` pixels: above SMALL, 256 to 224 as in torchvision's recipes."""
        return cls(resize=size if size <= SMALL else round(size * 256 / 224), crop=size)

    def to_dict(self) -> dict[str, Any]:
        """Return what model.json has as `preprocessing`."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """Return the settings that model.json has as `preprocessing`; raise KeyError or TypeError for others."""
        triples = {name: tuple(values[name]) for name in ("mean", "std")}
        return cls(**{**values, **triples})


def open_rgb(data: bytes) -> Image.Image:
    """Return the image upright (as EXIF says) in RGB: an animation's first frame, of 16 bits the upper 8.

    Raise what Pillow raises, an OSError for most broken images.
    """
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if upright.mode.startswith("I;16"):  # Pillow would clip at 255, which leaves white
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.mode == "P" and "transparency" in upright.info:
        upright = upright.convert("RGBA")  # the same colours as straight to RGB, without Pillow's warning
    return upright.convert("RGB")


def to_array(image: Image.Image, how: Preprocessing) -> NDArray[np.float32]:
    """Return an RGB image as the network's input, float32 [3, crop, crop]."""
    width, height = image.size
    if width <= height:
        size = (how.resize, int(how.resize * height / width))
    else:
        size = (int(how.resize * width / height), how.resize)
    image = image.resize(size, Image.Resampling[how.interpolation.upper()])
    left, top = round((size[0] - how.crop) / 2), round((size[1] - how.crop) / 2)
    pixels = np.asarray(image.crop((left, top, left + how.crop, top + how.crop)), np.float32) / np.float32(255)
    scaled = (pixels - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)  # [crop, crop, 3]
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))  # [3, crop, crop]
