"""What a rehearsal can be told; it checks itself before anything is started."""

import hashlib
import signal
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from kennel.aws import stack_name
from kennel.console import Stage
from kennel.errors import KennelError

# The same as training.hyperparameters.MODELS (a test compares them): an installed `kennel` comes without `training`.
MODELS = ("resnet18", "resnet34", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")

_SIZES = (32, 64, 96, 128, 160, 192, 224)
_SAMPLE = 200  # images looked at to guess a size

DUPLICATES = ("fail", "remove", "report")

_RANGES = {
    "epochs": (1, 10_000),
    "image_size": (16, 1024),
    "batch_size": (1, 65_536),
    "learning_rate": (1e-9, 10),
    "instances": (1, 8),
    "tune": (0, 500),
    "port": (0, 65_535),
    "seed": (0, 2**31 - 1),
    "threshold": (0, 1),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """One rehearsal. `data` None: the handwritten digits; `image_size` None: chosen by the images' own size."""

    data: Path | None = None
    weights: Path | None = None  # pretrained state_dict; with it only the head learns
    duplicates: str = "fail"  # what Prepare does with an image that is in two splits
    model: str = "resnet18"
    epochs: int = 8
    image_size: int | None = None
    batch_size: int = 64
    learning_rate: float = 0.0029
    instances: int = 1
    tune: int = 0  # trials: of the head within one job, of the whole network a job each; 0 = no tuning
    spot: bool = False
    images: bool = False
    base_image: str | None = None  # of the images; None: the official Python image
    keep: bool = False
    stage: str = "Dev"
    out: Path = Path("rehearsal")
    port: int = 0  # of the embedded AWS; 0 = any free one
    seed: int = 0
    threshold: float | None = None  # of the quality gate, 0 to 1; None: chosen by the data
    photos: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        _check_choice("model", self.model, MODELS)
        _check_choice("duplicates", self.duplicates, DUPLICATES)
        stack_name(self.stage, "")
        for field in fields(self):
            _check_range(field.name, getattr(self, field.name))
        if self.data is not None and not self.data.is_dir():
            raise KennelError(f"--data must be a folder of class folders, but {self.data} is none.")
        if self.weights is not None and not self.weights.is_file():
            raise KennelError(f"--weights must be a torchvision state_dict (.pth), but {self.weights} is no file.")
        for photo in self.photos:
            if not photo.exists():
                raise KennelError(f"--photos names {photo}, which does not exist.")
        if self.out.exists() and not self.out.is_dir():
            raise KennelError(f"--out must be a folder, but {self.out} is a file.")


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise KennelError(f"--{name} must be one of {', '.join(known)}, not {value!r}.")


def _check_range(name: str, value: object) -> None:
    if name not in _RANGES or value is None:
        return
    least, most = _RANGES[name]
    if not isinstance(value, int | float) or not least <= value <= most:  # also refuses nan
        raise KennelError(f"--{name.replace('_', '-')} must lie between {least:g} and {most:g}, not {value}.")


def rehearse(
    data: Annotated[
        Path | None, typer.Option(help="Folder of class folders.", show_default="handwritten digits")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Pretrained state_dict (.pth): only the head learns.")] = None,
    duplicates: Annotated[str, typer.Option(help="An image in two splits: fail, remove or report.")] = "fail",
    model: Annotated[str, typer.Option(help="Network: resnet18/34/50, mobilenet_v3_*, efficientnet_b0.")] = "resnet18",
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 8,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels a side.", show_default="by the images' own size")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images in an optimizer step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 0.0029,
    threshold: Annotated[
        float | None, typer.Option(help="Accuracy that the gate asks for.", show_default="by the data")
    ] = None,
    instances: Annotated[int, typer.Option(help="Training hosts, each a process group.")] = 1,
    tune: Annotated[int, typer.Option(metavar="N", help="Tune with N trials instead of one training.")] = 0,
    spot: Annotated[bool, typer.Option("--spot", help="Train on spot: a real SIGTERM in the middle, and on.")] = False,
    images: Annotated[bool, typer.Option("--images", help="Build the container images and run in them.")] = False,
    base_image: Annotated[
        str | None, typer.Option(help="Base of these images, with pip.", show_default="the official Python image")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything up for other clients until Ctrl-C.")] = False,
    photos: Annotated[list[Path] | None, typer.Option(help="More pictures (files or folders) to classify.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html and rehearsal.json.")] = Path("rehearsal"),
    port: Annotated[int, typer.Option(help="Port of the embedded AWS.", show_default="any free one")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    stage: Stage = "Dev",
) -> None:
    """Run everything on this machine: deploy, upload, train, release, classify. No AWS account, no Docker.

    [bold]Examples[/]

      kennel rehearse

      kennel rehearse --data dogs --model resnet50 --epochs 3 --photos rex.jpg

      kennel rehearse --instances 2 --spot --out /tmp/rehearsal

      kennel rehearse --keep
    """
    given = dict(locals())
    options = Options(**{**given, "photos": tuple(photos or ())})  # checked before half of AWS is imported
    from kennel.rehearsal.rehearse import rehearse as run

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stop by SIGTERM cleans up as Ctrl-C does
    run(options)


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
    return hashlib.sha256(str(path.relative_to(root)).encode(errors="surrogateescape")).hexdigest()
