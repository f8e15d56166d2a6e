"""The pipeline parameters that a rehearsal lays over the deployed defaults, so that one machine can run them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from kennel.rehearsal.options import Options

_SIZES = (32, 64, 96, 128, 160, 192, 224)
_SAMPLE = 200  # images looked at to guess a size


def overrides(options: Options, data: Path, classes: int) -> dict[str, str]:
    """Parameter name -> value, as StartPipelineExecution takes them."""
    return {
        "Model": options.model,
        "ImageSize": str(options.image_size or image_size(data)),
        "Epochs": str(options.epochs),
        "BatchSize": str(options.batch_size),
        "LearningRate": f"{options.learning_rate:g}",
        "Seed": str(options.seed),
        "InstanceCount": str(options.instances),
        "TuneTrials": str(options.tune),
        "Spot": "true" if options.spot else "false",
        "Duplicates": options.duplicates,
        "AccuracyThreshold": f"{threshold(options, classes):.4g}",
    } | _worst(options)


def threshold(options: Options, classes: int) -> float:
    """What the lower end of the accuracy's interval must reach: 0.9 for the digits; for unknown data, guessing."""
    if options.threshold is not None:
        return options.threshold
    return 0.9 if options.data is None else 1 / classes


def _worst(options: Options) -> dict[str, str]:
    """Nobody knows how hard the classes of unknown data are; the digits must pass the deployed threshold."""
    return {} if options.data is None and options.threshold is None else {"WorstClassesThreshold": "0"}


def image_size(data: Path) -> int:
    """The smallest usual size that is not below the images' own (median of the shorter sides, at most 224 pixels)."""
    sides = list(islice(_shorter_sides(data), _SAMPLE))
    own = statistics.median(sides) if sides else _SIZES[-1]
    return next((size for size in _SIZES if size >= own), _SIZES[-1])


def _shorter_sides(data: Path) -> Iterator[int]:
    from PIL import Image, UnidentifiedImageError

    for path in sorted(data.rglob("*"), key=lambda path: _mixed(path, data)):
        if path.is_file():
            try:
                with Image.open(path) as image:
                    yield min(image.size)
            except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
                continue


def _mixed(path: Path, root: Path) -> str:
    """An order that mixes classes and is the same everywhere."""
    import hashlib

    return hashlib.sha256(str(path.relative_to(root)).encode(errors="surrogateescape")).hexdigest()
