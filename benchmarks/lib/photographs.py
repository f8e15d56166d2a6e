"""The photographs that benchmarks train on and send: made ones, or views and copies of given ones."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_SIDE = 500  # pixels: the longer side, as in the pet and dog data sets
_QUALITY = 90


def write_views(folder: Path, photos: Path | None, *, scenes: int, train: int, valid: int) -> Path:
    """Write `folder`/{train,valid,test}/scene-NN/*.jpg, `train` and `valid` views of each scene (test: one).

    The scenes are the pictures in `photos`, or without it ones made of waves, blots and noise. A view is a random part
    of the scene, turned a little, in other light, with noise: no two files are alike, yet a scene can be recognised.
    """
    for number, scene in enumerate(_scenes(photos, scenes)):
        chance = np.random.default_rng(number)
        for split, count in (("train", train), ("valid", valid), ("test", 1)):
            target = folder / split / f"scene-{number:02}"
            target.mkdir(parents=True, exist_ok=True)
            for view in range(count):
                _view(scene, chance).save(target / f"{view:03}.jpg", quality=_QUALITY)
    return folder


def _scenes(photos: Path | None, count: int) -> Iterator[Image.Image]:
    if photos is None:
        yield from (_made(number) for number in range(count))
        return
    files = sorted(file for file in photos.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if len(files) < count:
        raise SystemExit(f"--photos must hold {count} pictures at least, but {photos} has {len(files)}.")
    for file in files[:count]:
        with Image.open(file) as picture:
            scale = _SIDE / max(picture.size)
            yield picture.convert("RGB").resize([round(side * scale) for side in picture.size])


def _made(seed: int) -> Image.Image:
    """Return a picture [375, 500] with the spectrum of a photograph: strong at large scales, weak at small ones."""
    chance = np.random.default_rng((seed, 1))
    height, width = _SIDE * 3 // 4, _SIDE
    y, x = np.mgrid[0:height, 0:width] / _SIDE
    picture = np.zeros((height, width, 3))
    for octave in range(1, 6):
        for _ in range(4):
            turn, phase = chance.uniform(0, 2 * np.pi, 2)
            wave = np.sin(2**octave * 3 * (x * np.cos(turn) + y * np.sin(turn)) + phase)
            picture += wave[..., None] * chance.normal(0, 1, 3) / octave
    picture += chance.normal(0, 0.25, picture.shape)
    low, high = np.quantile(picture, (0.01, 0.99))
    return Image.fromarray((np.clip((picture - low) / (high - low), 0, 1) * 255).astype(np.uint8))


def _view(scene: Image.Image, chance: np.random.Generator) -> Image.Image:
    width, height = scene.size
    share = chance.uniform(0.6, 1.0)
    left, top = chance.uniform(0, width * (1 - share)), chance.uniform(0, height * (1 - share))
    box = (left, top, left + width * share, top + height * share)
    view = scene.rotate(chance.uniform(-10, 10), Image.Resampling.BILINEAR).resize(scene.size, box=box)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        view = change(view).enhance(chance.uniform(0.7, 1.3))
    noisy = np.asarray(view, np.float32) + chance.normal(0, 6, (height, width, 3)).astype(np.float32)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def files(folder: Path) -> list[Path]:
    """Return the pictures in `folder`, always in the same order."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)


def photographs(folder: Path, photos: Path | None, *, made: int = 40) -> Path:
    """Fill `folder` with copies of the pictures in `photos`, or with `made` ones; raise SystemExit for none."""
    folder.mkdir(parents=True)
    if photos is None:
        for number, scene in enumerate(_scenes(None, made)):
            _view(scene, np.random.default_rng(number)).save(folder / f"{number:03}.jpg", quality=_QUALITY)
        return folder
    if not photos.is_dir() or not files(photos):
        raise SystemExit(f"--photos must name a folder with JPEG, PNG or WebP pictures, but {photos} is none.")
    for file in files(photos):
        shutil.copy(file, folder / file.name)
    return folder
