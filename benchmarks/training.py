"""Training, side by side with the recipes that people use. `--json FILE` writes the figures.

Head: the reference recipe (every image through the whole network in each epoch) against Kennel's head mode, on the same
images, cores and epochs; the floor is decoding and one forward pass over the same images, each at the best rate that
this machine showed. Whole network: torchvision's recipe against Kennel's. Ranks: two of one core each against one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# As `python -m` has it: beside this file its own name would hide the package `training`.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib import kennel  # noqa: E402
from benchmarks.lib.gpu import busy  # noqa: E402
from benchmarks.lib.photographs import write_views  # noqa: E402
from benchmarks.lib.report import describe_machine  # noqa: E402
from benchmarks.lib.table import Figures, show, summary  # noqa: E402

BATCH, RATE = 256, 0.0029  # the reference workload's
WHOLE_BATCH = 32  # torchvision's


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments, Path(folder))
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="pictures whose views are the images (default: made ones)")
    parser.add_argument("--scenes", type=int, default=40, help="classes (default 40)")
    parser.add_argument("--train", type=int, default=16, help="training images a class (default 16)")
    parser.add_argument("--valid", type=int, default=4, help="validation images a class (default 4)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of both heads (default 10)")
    parser.add_argument("--whole-images", type=int, default=256, help="images of a whole-network epoch (default 256)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    for name in ("scenes", "train", "valid", "epochs", "whole_images"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, not {getattr(arguments, name)}")
    return arguments


def measure(arguments: argparse.Namespace, folder: Path) -> Figures:
    """Run everything, one after the other, and return all figures."""
    images = write_views(
        folder / "images", arguments.photos, scenes=arguments.scenes, train=arguments.train, valid=arguments.valid
    )
    weights = folder / "resnet50.pth"
    _program("benchmarks.lib.weights", str(images / "train"), str(weights))
    figures: Figures = {"machine": describe_machine(), "epochs": arguments.epochs}
    figures["images"] = {split: arguments.scenes * getattr(arguments, split) for split in ("train", "valid")}
    figures["head"] = head(images, weights, arguments.epochs, folder)
    per_class = max(1, round(arguments.whole_images / arguments.scenes))
    some = write_views(folder / "some", arguments.photos, scenes=arguments.scenes, train=per_class, valid=1)
    figures["whole"] = whole(some, folder)
    figures["ranks"] = ranks(images, some, weights, folder)
    return figures | summary(figures)


def head(images: Path, weights: Path, epochs: int, folder: Path) -> Figures:
    """Seconds of the reference recipe and of Kennel's head mode, and the floor's rates in images a second."""
    settings = {"data": str(images), "weights": str(weights), "epochs": epochs}
    with _announced("the reference recipe"):
        reference = _program(
            "benchmarks.lib.reference_head", json.dumps(settings | {"batch_size": BATCH, "learning_rate": RATE})
        )
    with _announced("Kennel's head mode"):
        data = kennel.prepare(images, weights, folder / "head")
        told = kennel.train(data, folder / "head-run", _head_settings(epochs))
    ours = {
        "features_seconds": sum(told.number(f"features split={split}", "seconds") for split in ("train", "valid")),
        "backbone_seconds": told.number("backbone", "seconds"),
        "head_seconds": told.number("head", "seconds"),
        "total_seconds": told.seconds,
        "arithmetic": told.word("backbone", "precision"),
        "valid_accuracy": told.number("epoch", "valid_accuracy"),
    }
    with _announced("the floor"):
        floor = _program("benchmarks.lib.lower_bound", str(images / "train"))
    return {"reference": reference, "kennel": ours, "floor": floor}


def whole(images: Path, folder: Path) -> Figures:
    """Images a second of the second epoch, which has nothing left to warm up, and a GPU's share of busy time."""
    settings = {"data": str(images), "epochs": 2, "batch_size": WHOLE_BATCH}
    with _announced("torchvision's recipe"), busy() as reference_busy:
        reference = _program("benchmarks.lib.reference_whole", json.dumps(settings))
    data = kennel.prepare(images, None, folder / "whole")
    with _announced("Kennel's whole-network mode"), busy() as kennel_busy:
        told = kennel.train(data, folder / "whole-run", _whole_settings(WHOLE_BATCH))
    return {
        "reference": {"images_per_second": reference["images_per_second"][-1], "gpu_busy": reference_busy()},
        "kennel": {
            "images_per_second": told.number("epoch", "images_per_second"),
            "precision": told.word("model", "precision"),
            "gpu_busy": kennel_busy(),
        },
    }


def ranks(images: Path, some: Path, weights: Path, folder: Path) -> Figures:
    """Images a second of one rank and of two, each bound to a core of its own."""
    found: Figures = {}
    data = kennel.prepare(images, weights, folder / "ranks-head")
    for count in (1, 2):
        with _announced(f"features, {count} of one core"):
            told = kennel.train(data, folder / f"features-{count}", _head_settings(1), cores=range(count))
        found[f"features_{count}"] = told.number("features split=train", "images_per_second")
    data = kennel.prepare(some, None, folder / "ranks-whole")
    for count in (1, 2):
        with _announced(f"whole network, {count} of one core"):
            told = kennel.train(
                data, folder / f"whole-{count}", _whole_settings(WHOLE_BATCH * count), cores=range(count)
            )
        found[f"whole_{count}"] = told.number("epoch", "images_per_second")
    return found


def _head_settings(epochs: int) -> dict[str, Any]:
    return {"mode": "head", "epochs": epochs, "batch_size": BATCH, "learning_rate": RATE}


def _whole_settings(batch_size: int) -> dict[str, Any]:
    return {"mode": "whole", "epochs": 2, "batch_size": batch_size}


def _program(module: str, *arguments: str) -> Any:
    """Run one of the recipes in an interpreter of its own; return what its last line says, if that is JSON."""
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    done = subprocess.run(command, cwd=kennel.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr}")
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if lines else None


@contextmanager
def _announced(name: str) -> Iterator[None]:
    """Say on stderr what is running: all of it takes a quarter of an hour."""
    begun = time.perf_counter()
    yield
    print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
