"""Small data sets for the Prepare job."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.contracts import validate
from training.__main__ import main
from training.paths import Paths

Prepare = Callable[..., dict[str, Any]]


def noise(seed: int, size: int = 24) -> bytes:
    """A PNG of coloured blocks that no other seed makes."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(blocks).resize((size, size), Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def png() -> Callable[..., bytes]:
    return noise


@pytest.fixture
def dataset(opt_ml: Paths) -> Path:
    """The empty input folder of Prepare."""
    folder = opt_ml.processing_input("dataset")
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def add(dataset: Path) -> Callable[[str, bytes], None]:
    def write(name: str, data: bytes) -> None:
        file = dataset / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    return write


@pytest.fixture
def two_classes(add: Callable[[str, bytes], None]) -> None:
    """Ten different images each of cat and dog, without splits."""
    for number in range(10):
        add(f"cat/{number}.png", noise(number))
        add(f"dog/{number}.png", noise(100 + number))


@pytest.fixture
def prepared(opt_ml: Paths) -> Prepare:
    """Run Prepare, which must succeed, and return its report."""

    def run(*options: str) -> dict[str, Any]:
        assert main(["prepare", *options]) == 0
        report: dict[str, Any] = json.loads((opt_ml.processing_output("report") / "prepare.json").read_text("utf-8"))
        validate("prepare", report)
        return report

    return run
