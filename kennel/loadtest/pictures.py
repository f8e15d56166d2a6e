"""The pictures that are sent: the caller's, or made ones of a web photograph's size."""

import random
from pathlib import Path

from kennel.errors import KennelError
from kennel.invoke import FILE_LIMIT

_MADE = 8
_SIZE = (500, 375)  # pixels, as in the pet and dog data sets
_GRAIN = (50, 38)  # pixels of noise, scaled up: shapes, and a JPEG of about 40 kB with the finer noise on top


def pictures(given: list[Path], folder: Path) -> list[Path]:
    """Return `given` as checked, or made pictures in `folder`; raises KennelError for what cannot be sent."""
    for path in given:
        if not path.is_file() or not 0 < path.stat().st_size <= FILE_LIMIT:
            raise KennelError(f"--photo {path} must be a picture file of at most {FILE_LIMIT / 1e6:.1f} MB.")
    return given or [_made(number, folder) for number in range(_MADE)]


def _made(seed: int, folder: Path) -> Path:
    from PIL import Image

    chance = random.Random(seed)
    coarse = Image.frombytes("RGB", _GRAIN, chance.randbytes(3 * _GRAIN[0] * _GRAIN[1]))
    fine = Image.frombytes("RGB", _SIZE, chance.randbytes(3 * _SIZE[0] * _SIZE[1]))
    file = folder / f"{seed}.jpg"
    Image.blend(coarse.resize(_SIZE, Image.Resampling.BICUBIC), fine, 0.05).save(file, quality=90)
    return file
