"""Decodes every image once, refuses broken ones, and computes the hashes by which copies are found."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from training.prepare.dataset import Found
from training.transform import decoding, open_image, to_rgb

MAX_PIXELS = 50_000_000  # 150 MB decoded; more is a mistake or an attack
THUMBNAIL = 16  # pixels a side: enough to tell a re-encoded image from a similar one


@dataclass(frozen=True, eq=False)
class Verified:
    """An image that can be decoded: its SHA-256, its 64-bit difference hash and a grey thumbnail, uint8 [16, 16]."""

    found: Found
    sha256: str
    dhash: int
    thumbnail: NDArray[np.uint8]
    animated: bool
    dim: bool  # 16 bits a pixel, of which it uses 12 at most
    kind: str  # Pillow's name of the format

    @property
    def name(self) -> str:
        return self.found.source.name


def verify(images: Sequence[Found]) -> tuple[list[Verified], list[tuple[str, str]]]:
    """Return the images that can be decoded, and name and reason of those that cannot, each in the given order."""
    # Pillow decodes outside the GIL.
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        results = list(pool.map(_verify, images))
    whole = [one for one in results if isinstance(one, Verified)]
    return whole, [one for one in results if isinstance(one, tuple)]


def _verify(found: Found) -> Verified | tuple[str, str]:
    try:
        with decoding():
            data = found.source.read()
            reason = "is empty" if not data else "is cut short" if len(data) != found.source.size else ""
            if not reason:
                image = open_image(data)
                reason = _refusal(image)
            if not reason:
                animated, kind = _is_animation(image), image.format or ""
                fingerprints = _fingerprints(to_rgb(image))
                return Verified(found, hashlib.sha256(data).hexdigest(), *fingerprints, animated, _is_dim(image), kind)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = f"has more than {MAX_PIXELS} pixels"
    except UnidentifiedImageError:
        reason = "is not an image of a format that can be read"
    except MemoryError:
        reason = "does not fit into memory when decoded"
    except OSError as error:
        reason = f"cannot be decoded ({str(error)[:200]})"
    return found.source.name, reason


def _refusal(header: Image.Image) -> str:
    """Return why an image must not even be decoded, or an empty string."""
    if header.width * header.height > MAX_PIXELS:
        return f"has more than {MAX_PIXELS} pixels ({header.width} x {header.height})"
    if header.mode in ("I", "F"):
        return "has 32 bits per pixel without saying which value is white; convert it to 8 bits per channel"
    return ""


def _is_animation(header: Image.Image) -> bool:
    """Return whether there are several frames; cameras append a preview to a JPEG (MPO), which is not one."""
    return header.format != "MPO" and bool(getattr(header, "is_animated", False))


def _is_dim(image: Image.Image) -> bool:
    """Return whether a 16-bit image uses 12 bits at most, as X-ray detectors and microscopes do: it looks black."""
    return image.mode.startswith("I;16") and int(np.asarray(image).max()) < 2**12


def _fingerprints(picture: Image.Image) -> tuple[int, NDArray[np.uint8]]:
    """Return the difference hash (is each of 8 x 8 cells darker than its right neighbour?) and the thumbnail."""
    grey = picture.convert("L")
    cells = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = np.packbits(cells[:, :-1] < cells[:, 1:])
    thumbnail = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.uint8)
    return int.from_bytes(bits.tobytes(), "big"), thumbnail
