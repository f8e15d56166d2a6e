"""Small pictures inside the page, so that it stays one file of a bounded size."""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from training.split import Split
from training.transform import open_rgb

_SIDE = 176  # pixels: about twice what a picture takes on the page, for dense screens
_SMALL = 64  # below this the pixels themselves are shown, not a blur of them
_BUDGET = 1_500_000  # characters of all pictures together


@dataclass(frozen=True)
class Picture:
    """`uri` is empty for a picture that cannot be shown."""

    name: str
    uri: str = ""
    pixelated: bool = False


@dataclass
class Album:
    """Makes thumbnails of a split's images, each once, until the budget is spent."""

    split: Split
    budget: int = _BUDGET
    _made: dict[int, Picture] = field(default_factory=dict, init=False)

    def picture(self, index: int) -> Picture:
        """Return a thumbnail of image `index`; without a picture for one that is too much or cannot be decoded."""
        if index not in self._made:
            made = self._make(index)
            self._made[index] = made if len(made.uri) <= self.budget else Picture(made.name)
            self.budget -= len(self._made[index].uri)
        return self._made[index]

    def _make(self, index: int) -> Picture:
        name = self.split.samples[index].name
        try:
            small = open_rgb(self.split.read(index))
        except OSError:
            return Picture(name)
        pixelated = max(small.size) <= _SMALL
        small.thumbnail((_SIDE, _SIDE))
        packed = io.BytesIO()
        small.save(packed, "JPEG", quality=90 if pixelated else 78, optimize=True)
        return Picture(name, _uri(packed.getvalue(), "jpeg"), pixelated)


def small_figure(file: Path, side: int = 1100) -> str:
    """Return a PNG file as a data URI, at most `side` pixels wide and with few colours, so that it takes little."""
    with Image.open(file) as opened:
        figure = opened.convert("RGB")
    figure.thumbnail((side, side * 2))
    packed = io.BytesIO()
    figure.quantize(64).save(packed, "PNG", optimize=True)
    return _uri(packed.getvalue(), "png")


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
