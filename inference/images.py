"""Bytes to an upright RGB picture, or a refusal that says why."""

import io
import time

import numpy as np

# The plug-ins register themselves when imported; Pillow would otherwise load WebP's on the first request only.
from PIL import GifImagePlugin, Image, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from inference.errors import Refused

KINDS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    GifImagePlugin.GifImageFile.format,
)

# Pictures that a caller may well send, told from garbage by how they begin. Pillow could read some of them; each
# further parser is one more that hostile bytes may reach.
_OTHER_KINDS = (
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

# A progressive JPEG of six megabytes may hold a hundred thousand passes over the picture; cameras write about ten.
# These two bytes stand nowhere else in a JPEG's data.
_PASS, _PASSES = b"\xff\xda", 200
_DECODE_SECONDS = 5.0  # of this thread's own computing, on which a busy machine has no influence


def decode(body: bytes, max_pixels: int) -> Image.Image:
    """An upright RGB picture; of an animation the first frame.

    As in training, alpha is dropped, not blended, and of 16 bits the upper 8 count. Raises Refused: 400 when the bytes
    are no whole picture, 413 beyond `max_pixels`, 415 for kinds that are not taken.
    """
    if not body:
        raise Refused(400, "not_an_image", "The body is empty; send the bytes of a picture.")
    _refuse_other_kinds(body)
    if body.startswith(b"\xff\xd8") and body.count(_PASS) > _PASSES:
        raise _too_slow()
    try:
        picture = Image.open(_Timed(body), formats=KINDS)
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
    ImageOps.exif_transpose(picture, in_place=True)  # which copies nothing where nothing is to be turned
    upright = picture
    if upright.mode.startswith("I;16"):  # Pillow would cut at 255, which leaves white
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.mode == "P" and "transparency" in upright.info:
        # The same colours as straight to RGB, without Pillow's warning about transparent palettes.
        upright = upright.convert("RGBA")
    upright.load()
    return upright if upright.mode == "RGB" else upright.convert("RGB")


class _Timed(io.BytesIO):
    """Refuses to be read on when decoding has taken too long: decoders ask for a part at a time."""

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


def _refuse_other_kinds(body: bytes) -> None:
    for offset, start, kind in _OTHER_KINDS:
        if body.startswith(start, offset):
            raise Refused(415, "unsupported_image", f"{kind} is not supported; send JPEG, PNG, WebP or GIF.")
