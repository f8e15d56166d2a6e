"""`kennel rehearse`: its options, and the pipeline parameters that let one machine run the deployed pipeline."""

import hashlib
import signal
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer

from kennel.aws import stack_name
from kennel.console import Stage
from kennel.errors import KennelError, require_repository
from kennel.train.request import pascal, with_hyperparameters

_SIZES = (32, 64, 96, 128, 160, 192, 224)
_SAMPLE = 200  # images looked at to guess a size

# What suits one machine; the deployed pipeline's defaults do not.
_DEFAULTS = {"model": "resnet18", "epochs": "8", "batch_size": "64"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one rehearsal; it checks itself, and raises KennelError, before anything is started."""

    hyperparameters: Mapping[str, str] = field(default_factory=dict)  # as given, by field name
    data: Path | None = None  # None: the handwritten digits
    weights: Path | None = None  # pretrained state_dict; with it only the head learns
    duplicates: str = "fail"  # what Prepare does with an image that is in two splits
    instances: int = 1
    tune: int = 0  # trials: of the head within one job, of the whole network a job each; 0 = no tuning
    spot: bool = False
    images: bool = False
    base_image: str | None = None  # of the images; None: the official Python image
    keep: bool = False
    stage: str = "Dev"
    out: Path = Path("rehearsal")
    port: int = 0  # of the embedded AWS; 0 = any free one
    threshold: float | None = None  # of the quality gate, 0 to 1; None: chosen by the data
    photos: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        stack_name(self.stage, "")
        if self.data is not None and not self.data.is_dir():
            raise KennelError(f"--data must be a folder of class folders, but {self.data} is none.")
        if self.weights is not None and not self.weights.is_file():
            raise KennelError(f"--weights must be a torchvision state_dict (.pth), but {self.weights} is no file.")
        for photo in self.photos:
            if not photo.exists():
                raise KennelError(f"--photos names {photo}, which does not exist.")
        if self.out.exists() and not self.out.is_dir():
            raise KennelError(f"--out must be a folder, but {self.out} is a file.")

    @property
    def chosen(self) -> dict[str, str]:
        """Return the hyperparameters with the rehearsal's own defaults."""
        return {**_DEFAULTS, **self.hyperparameters}

    @property
    def seed(self) -> int:
        return int(self.chosen.get("seed", 0))


@with_hyperparameters(
    "Hyperparameters (default: the pipeline's)", {**_DEFAULTS, "image_size": "by the images' own size"}
)
def rehearse(
    data: Annotated[
        Path | None, typer.Option(help="Folder of class folders.", show_default="handwritten digits")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Pretrained state_dict (.pth): only the head learns.")] = None,
    duplicates: Annotated[
        Literal["fail", "remove", "report"], typer.Option(help="What happens to an image that is in two splits.")
    ] = "fail",
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accuracy that the quality gate requires.", show_default="by the data"),
    ] = None,
    instances: Annotated[int, typer.Option(min=1, max=8, help="Training hosts, each a process group.")] = 1,
    tune: Annotated[int, typer.Option(min=0, max=500, metavar="N", help="Tune: N trials, not one training.")] = 0,
    spot: Annotated[bool, typer.Option("--spot", help="Train on spot: a real SIGTERM in the middle, and on.")] = False,
    images: Annotated[bool, typer.Option("--images", help="Build the container images and run in them.")] = False,
    base_image: Annotated[
        str | None, typer.Option(help="Base of these images, with pip.", show_default="the official Python image")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything up for other clients until Ctrl-C.")] = False,
    photos: Annotated[list[Path] | None, typer.Option(help="More pictures (files or folders) to classify.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html and rehearsal.json.")] = Path("rehearsal"),
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the embedded AWS.", show_default="any free one")
    ] = 0,
    stage: Stage = "Dev",
    *,
    hyperparameters: dict[str, str],
) -> None:
    """Run everything on this machine: deploy, upload, train, release, classify. No AWS account, no Docker.

    [bold]Examples[/]

      kennel rehearse

      kennel rehearse --data dogs --model resnet50 --epochs 3 --photos rex.jpg

      kennel rehearse --instances 2 --spot --out /tmp/rehearsal

      kennel rehearse --keep
    """
    given = dict(locals())
    require_repository("The rehearsal")
    options = Options(**{**given, "photos": tuple(photos or ())})  # checked before half of AWS is imported
    from kennel.rehearsal.rehearse import rehearse as run

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stop by SIGTERM cleans up as Ctrl-C does
    run(options)


def overrides(options: Options, data: Path, classes: int) -> dict[str, str]:
    """Return the pipeline parameters that the rehearsal lays over the deployed defaults, by name."""
    hyperparameters = {"image_size": str(image_size(data)), **options.chosen}
    found = {
        "InstanceCount": str(options.instances),
        "TuneTrials": str(options.tune),
        "Spot": "true" if options.spot else "false",
        "Duplicates": options.duplicates,
        "AccuracyThreshold": f"{threshold(options, classes):.4g}",
    }
    if options.data is not None or options.threshold is not None:
        # Nobody knows how hard the classes of unknown data are; the digits must pass the deployed threshold.
        found["WorstClassesThreshold"] = "0"
    return {pascal(name): value for name, value in hyperparameters.items()} | found


def threshold(options: Options, classes: int) -> float:
    """Return the least lower end of the accuracy's interval: 0.9 for the digits, 1 / classes for other data."""
    if options.threshold is not None:
        return options.threshold
    return 0.9 if options.data is None else 1 / classes


def image_size(data: Path) -> int:
    """Return the smallest usual size not below the images' own (median of the shorter sides), at most 224 pixels."""
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
    """Return a sort key that mixes classes and is the same everywhere."""
    return hashlib.sha256(str(path.relative_to(root)).encode(errors="surrogateescape")).hexdigest()
