"""The evaluation transform: from an encoded image to the network's input, with Pillow and numpy alone.

inference/images.py does the same arithmetic (tests/test_parity.py); its sizes and constants come from model.json.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_ORIENTATION, _SHORT = 274, 3  # EXIF's tag, and the type of its value
_TURNS = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)  # for orientations 2 to 8
_JPEG, _EXIF = b"\xff\xd8", b"Exif\0\0"
_PNG, _METADATA = b"\x89PNG\r\n\x1a\n", (b"tEXt", b"zTXt", b"iTXt", b"iCCP")

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


@contextmanager
def decoding() -> Iterator[None]:
    """Raise OSError for whatever broken bytes lead Pillow's parsers into, but for bombs and a lack of memory."""
    try:
        yield
    except (OSError, MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception as error:  # SyntaxError, ValueError, struct.error, ZeroDivisionError ...
        raise OSError(f"{type(error).__name__}: {error}") from error


def open_image(data: bytes) -> Image.Image:
    """Return the image before its pixels are decoded. Raise OSError, or Pillow's for too many pixels."""
    with decoding():
        return Image.open(io.BytesIO(without_metadata(data)), formats=FORMATS)


def open_rgb(data: bytes) -> Image.Image:
    """Return the image upright (as EXIF says) in RGB: an animation's first frame, of 16 bits the upper 8.

    Raise OSError for a broken image, or Pillow's error for too many pixels.
    """
    return to_rgb(open_image(data))


def to_rgb(image: Image.Image) -> Image.Image:
    """Decode what `open_image` returned; raise as `open_rgb` does."""
    with decoding():
        image.load()  # of a PNG the EXIF data may follow the pixels
        turn = orientation(image.info.get("exif", b""))
        upright = image.transpose(_TURNS[turn - 2]) if turn > 1 else image
        if upright.mode.startswith("I;16"):  # Pillow would clip at 255, which leaves white
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        if upright.mode == "P" and "transparency" in upright.info:
            upright = upright.convert("RGBA")  # the same colours as straight to RGB, without Pillow's warning
        return upright.convert("RGB")


def without_metadata(data: bytes) -> bytes:
    """Return the file without what nobody needs and what would cost the picture, or time, for its size alone.

    Of a PNG these are texts and colour profile, of a JPEG the EXIF segments after the first, which Pillow joins.
    """
    if data.startswith(_JPEG):
        first = data.find(_EXIF) + len(_EXIF)
        return data[:first] + data[first:].replace(_EXIF, _EXIF.lower()) if data.count(_EXIF) > 1 else data
    if not data.startswith(_PNG) or not any(kind in data for kind in _METADATA):
        return data
    kept, at = [_PNG], len(_PNG)
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND":
            break
        if kind not in _METADATA:
            kept.append(data[at : at + size + 12])  # with length, kind and checksum
        at += size + 12
    return b"".join([*kept, data[at:]])


def orientation(exif: bytes) -> int:
    """Return EXIF's orientation, 1 (upright) to 8; 1 where it has none. Nothing else of it is read or can break it."""
    tiff = exif.removeprefix(_EXIF)
    order = ">" if tiff.startswith(b"MM") else "<"
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for at in range(start + 2, start + 2 + count * 12, 12):
            tag, kind, values, value = struct.unpack_from(order + "HHIH", tiff, at)
            if tag == _ORIENTATION:
                return int(value) if (kind, values) == (_SHORT, 1) and 1 <= value <= 8 else 1
    except struct.error:  # cut short
        pass
    return 1


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
