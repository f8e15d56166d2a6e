"""Pictures inside the page, so that it stays one file."""

import base64
import io
import warnings
from dataclasses import dataclass

_SIDE = 320  # pixels: a card is half as wide, on a dense screen
_SMALL = 64  # below this the pixels themselves are shown, not a blur of them


@dataclass(frozen=True)
class Picture:
    uri: str
    pixelated: bool = False


def thumbnail(image: bytes) -> Picture | None:
    """Return a small copy as a data URI, or None for bytes that are no picture."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow only warns of a decompression bomb
            with Image.open(io.BytesIO(image)) as opened:
                opened.draft("RGB", (_SIDE * 2, _SIDE * 2))
                small = ImageOps.exif_transpose(opened).convert("RGB")
    except Exception:  # Pillow's decoders raise nearly anything for hostile bytes; the answer is the same
        return None
    pixelated = max(small.size) <= _SMALL
    small.thumbnail((_SIDE, _SIDE))
    packed = io.BytesIO()
    small.save(packed, "PNG" if pixelated else "JPEG", quality=82)
    return Picture(_uri(packed.getvalue(), "png" if pixelated else "jpeg"), pixelated)


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
