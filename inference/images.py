"""From a picture's bytes to the network's input: decoding, or a refusal that says why, and the evaluation transform.

The transform yields the same numbers as training/transform.py and torchvision (tests/test_parity.py).
"""

import io
import math
import struct
import time

import numpy as np
from numpy.typing import NDArray
from PIL import GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from inference.artifact import Preprocessing
from inference.errors import Refused

FORMATS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    GifImagePlugin.GifImageFile.format,
)

# Formats that a caller may well send, recognized by how they begin. Pillow could read some of them; each further
# parser is one more that hostile bytes may reach.
_OTHER_FORMATS = (
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"%PDF-", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"8BPS", "PSD"),
)

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

# A progressive JPEG of six megabytes may hold a hundred thousand passes over the picture; cameras write about ten.
# These two bytes stand nowhere else in a JPEG's data.
_PASS, _PASSES = b"\xff\xda", 200
_DECODE_SECONDS = 5.0  # of this thread's own computing, on which a busy machine has no influence


def decode(body: bytes, max_pixels: int) -> Image.Image:
    """Return an upright RGB picture; of an animation the first frame.

    As in training, alpha is dropped, not blended, and of 16 bits the upper 8 count. Raise Refused: 400 when the bytes
    are no whole picture, 413 beyond `max_pixels`, 415 for formats that are not read.
    """
    if not body:
        raise Refused(400, "not_an_image", "The body is empty; send the bytes of a picture.")
    _refuse_other_formats(body)
    if body.startswith(_JPEG) and body.count(_PASS) > _PASSES:
        raise _too_slow()
    try:
        picture = Image.open(_TimeLimitedBytes(without_metadata(body)), formats=FORMATS)
        if picture.width * picture.height <= max_pixels:
            return to_rgb(picture)
    except Image.DecompressionBombError:
        pass
    except (MemoryError, Refused):
        raise
    # Pillow's parsers raise whatever broken bytes lead them into: OSError, SyntaxError, ValueError, struct.error ...
    except Exception as error:
        raise Refused(400, "not_an_image", "The body is not a whole JPEG, PNG, WebP or GIF picture.") from error
    raise Refused(413, "too_large", f"The picture has more than {max_pixels} pixels; send a smaller one.")


def to_rgb(picture: Image.Image) -> Image.Image:
    """Turned upright as EXIF says, then RGB; any size, 8 bits a channel."""
    picture.load()  # of a PNG the EXIF data may follow the pixels
    turn = orientation(picture.info.get("exif", b""))
    upright = picture.transpose(_TURNS[turn - 2]) if turn > 1 else picture
    if upright.mode.startswith("I;16"):  # Pillow would cut at 255, which leaves white
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.mode == "P" and "transparency" in upright.info:
        # The same colours as straight to RGB, without Pillow's warning about transparent palettes.
        upright = upright.convert("RGBA")
    return upright if upright.mode == "RGB" else upright.convert("RGB")


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


class _TimeLimitedBytes(io.BytesIO):
    """Refuses to be read once decoding has taken too long; decoders read a part at a time."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._until = time.thread_time() + _DECODE_SECONDS

    def read(self, size: int | None = -1) -> bytes:
        if time.thread_time() > self._until:
            raise _too_slow()
        return super().read(size)


def _too_slow() -> Refused:
    message = f"The picture takes more than {_DECODE_SECONDS:g} seconds to decode; save it again as a plain JPEG."
    return Refused(413, "too_large", message)


def _refuse_other_formats(body: bytes) -> None:
    for offset, start, kind in _OTHER_FORMATS:
        if body.startswith(start, offset):
            raise Refused(415, "unsupported_image", f"{kind} is not supported; send JPEG, PNG, WebP or GIF.")


def resized(width: int, height: int, shorter: int) -> tuple[int, int]:
    """Return (width, height) in pixels with the shorter side `shorter`; the longer is truncated, as in torchvision."""
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def to_pixels(picture: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return an RGB picture as uint8 [crop, crop, 3]."""
    width, height = resized(*picture.size, preprocessing.resize)
    # round() takes halves to the even number, as in torchvision's center_crop.
    left, top = round((width - preprocessing.crop) / 2), round((height - preprocessing.crop) / 2)
    right, bottom = left + preprocessing.crop, top + preprocessing.crop
    if preprocessing.interpolation is Image.Resampling.BILINEAR:  # steeper filters would differ by more
        return _resized_crop(picture, preprocessing.crop, left, top, picture.width / width, picture.height / height)
    return np.asarray(picture.resize((width, height), preprocessing.interpolation).crop((left, top, right, bottom)))


def _resized_crop(
    picture: Image.Image, crop: int, left: int, top: int, across: float, down: float
) -> NDArray[np.uint8]:
    """Return the crop, resizing only what is kept: half the work. `across`, `down`: old pixels in a new one.

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


def normalized(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return uint8 [crop, crop, 3] as float32 [1, 3, crop, crop], for runtimes that do not normalize themselves."""
    shares = np.asarray(pixels, np.float32) / np.float32(255)
    values = (shares - np.asarray(preprocessing.mean, np.float32)) / np.asarray(preprocessing.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[np.newaxis])
