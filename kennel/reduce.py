"""Makes a picture small enough to be sent."""

import io
import warnings
from dataclasses import dataclass
from typing import Any

_SHORTER = 1024  # pixels of the shorter side: four times what models usually look at
_LONGEST = 65_500  # what a JPEG can have
_STEP = 0.7  # from one try to the next
_QUALITY = 92


@dataclass(frozen=True)
class Reduced:
    jpeg: bytes
    width: int
    height: int


def reduced(picture: bytes, max_bytes: int) -> Reduced | None:
    """The whole picture upright as a JPEG of at most `max_bytes`, or None for bytes that are no picture.

    What the inference server would see of colours stays: alpha is dropped, of 16-bit grey the upper 8 bits count.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the caller's own file
            with Image.open(io.BytesIO(picture)) as opened:
                whole = _upright(opened)
    except Exception:  # Pillow's decoders raise nearly anything for broken bytes; the answer is the same
        return None
    scale = min(1.0, _SHORTER / min(whole.size), _LONGEST / max(whole.size))
    while len((made := _jpeg(whole, scale)).jpeg) > max_bytes:
        scale *= _STEP
    return made


def _upright(opened: Any) -> Any:
    """As inference/images.py has it."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I;16"):
        upright = upright.point(lambda value: value * (1 / 256)).convert("L")
    if upright.mode == "P" and "transparency" in upright.info:
        upright = upright.convert("RGBA")
    return upright.convert("RGB")


def _jpeg(whole: Any, scale: float) -> Reduced:
    width, height = (max(1, round(side * scale)) for side in whole.size)
    packed = io.BytesIO()
    whole.resize((width, height), reducing_gap=3).save(packed, "JPEG", quality=_QUALITY)
    return Reduced(packed.getvalue(), width, height)
