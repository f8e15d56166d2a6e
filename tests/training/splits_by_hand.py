"""Prepared splits made without Prepare, and jobs on them in this process."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from training.distributed.process_group import ProcessGroup
from training.hyperparameters import Hyperparameters
from training.paths import Paths
from training.split import Sample, Split, load_split
from training.train.job import Job

CLASSES = ("cat", "dog")


def encoded(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def scene(seed: int, width: int, height: int) -> Image.Image:
    """Coloured waves of many lengths, strong at large scales as in photographs, and some grain."""
    chance = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / height
    waves = sum(
        np.sin(3 * 2**octave * (x * np.cos(turn) + y * np.sin(turn)))[..., None] * chance.normal(0, 1, 3) / octave
        for octave in range(1, 6)
        for turn in chance.uniform(0, 7, 3)
    )
    pixels = 128 + 40 * waves + chance.normal(0, 4, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def tinted(label: int, seed: int, side: int = 32) -> bytes:
    """A noisy picture whose colour tells its class."""
    pixels = np.random.default_rng(seed).integers(0, 120, (side, side, 3), dtype=np.uint8)
    pixels[..., 2 * label] += 120
    return encoded(Image.fromarray(pixels), "PNG")


def write_split(folder: Path, name: str, pictures: Sequence[tuple[int, bytes]], classes: Sequence[str]) -> Split:
    """Write and load a split of (label, encoded image) pairs; the images are named `class/number.img`."""
    folder.mkdir(parents=True)
    shard, samples = b"", []
    for number, (label, data) in enumerate(pictures):
        digest = hashlib.sha256(data).hexdigest()
        sample = f"{classes[label]}/{number}.img"
        samples.append(Sample("shard-00000.tar", len(shard), len(data), label, sample, digest))
        shard += data
    (folder / "shard-00000.tar").write_bytes(shard)
    Split(folder, name, tuple(classes), tuple(samples), "0123456789abcdef").write_index()
    return load_split(folder)


def write_channels(root: Path, train: int = 12, valid: int = 5, classes: Sequence[str] = CLASSES) -> None:
    """The three channels of a job: so many tinted pictures, in turns of each class, and no weights."""
    for name, count, first in (("train", train, 0), ("valid", valid, 1000)):
        pictures = [(number % len(classes), tinted(number % len(classes), first + number)) for number in range(count)]
        write_split(root / "input" / "data" / name, name, pictures, classes)
    (root / "input" / "data" / "weights").mkdir()
    (root / "input" / "data" / "weights" / "weights.json").write_text(json.dumps({"file": None}), "utf-8")


SMALL = {"model": "mobilenet_v3_small", "image_size": 16, "epochs": 2, "batch_size": 4, "precision": "float32"}


class _Flag:
    """Set once it was looked at so many times; may raise in place of it, as a kill does."""

    def __init__(self, after: int | None = None, error: type[BaseException] | None = None) -> None:
        self._left, self._error = after, error

    @property
    def is_set(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        if self._left < 0 and self._error:
            raise self._error
        return self._left < 0


def stop(after: int | None = None, error: type[BaseException] | None = None) -> Any:
    """The flag that SIGTERM sets: set, or raising `error`, once it was looked at `after` times."""
    return _Flag(after, error)


def small_job(root: Path, train: int = 12, **settings: Any) -> Job:
    """A job on so many training and five validation pictures, alone on one core."""
    torch.set_num_threads(1)
    if not root.exists():
        write_channels(root, train)
    one = torch.device("cpu")
    return Job(Paths(root), Hyperparameters(**{**SMALL, **settings}), ProcessGroup(0, 1, one), one)
