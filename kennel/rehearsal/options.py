"""`kennel rehearse`: its options, and the pipeline parameters that let one machine run the deployed pipeline."""

import random
import signal
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from kennel.aws import stack_name
from kennel.console import Stage
from kennel.errors import KennelError, require_repository
from kennel.train.request import with_hyperparameters
from kennel.upload.folder import Tree
from training.hyperparameters import parameter_name

SUITED_HERE = {"model": "resnet18", "epochs": "8", "batch_size": "64"}  # hyperparameters for a single machine
_SIZES = (32, 64, 96, 128, 160, 192, 224)  # pixels
_SAMPLE = 200  # images that are opened to choose a size


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one rehearsal. `hyperparameters` are texts by field name, and include those of `SUITED_HERE`."""

    hyperparameters: Mapping[str, str]
    data: Path | None = None  # None: the handwritten digits
    weights: Path | None = None  # pretrained state_dict; with it only the head learns
    duplicates: str = "fail"  # what Prepare does with an image that is in two splits
    instances: int = 1
    tune: int = (
        0  # trials: of the head within one job, of the whole network a job each; 0: 8 of a head, no tuning of a whole
    )
    spot: bool = False
    images: bool = False
    base_image: str | None = None  # of the images; None: the official Python image
    keep: bool = False
    update: bool = False
    new_account: bool = False  # the embedded AWS has the quotas of a new account
    stage: str = "Dev"
    out: Path = Path("rehearsal")
    port: int = 0  # of the embedded AWS; 0 = any free one
    threshold: float | None = None  # of the quality gate, 0 to 1; None: chosen by the data
    photos: tuple[Path, ...] = ()
    none: bool = False  # these photos show none of the classes
    hold_out: int = 0  # classes that training does not see


@with_hyperparameters("Hyperparameters (default: the pipeline's; the image size: by the images)", SUITED_HERE)
def rehearse(
    data: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of class folders.", show_default="handwritten digits"),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Pretrained state_dict (.pth): only the head learns."),
    ] = None,
    duplicates: Annotated[
        Literal["fail", "remove", "report"], typer.Option(help="What happens to an image that is in two splits.")
    ] = "fail",
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accuracy that the quality gate requires.", show_default="by the data"),
    ] = None,
    instances: Annotated[int, typer.Option(min=1, max=8, help="Training hosts, each a process group.")] = 1,
    tune: Annotated[
        int, typer.Option(min=0, max=500, metavar="N", help="Try N settings (0: 8 of a head, one of a whole network).")
    ] = 0,
    spot: Annotated[bool, typer.Option("--spot", help="Train on spot: a real SIGTERM in the middle, and on.")] = False,
    images: Annotated[bool, typer.Option("--images", help="Build the container images and run in them.")] = False,
    base_image: Annotated[
        str | None, typer.Option(help="Base of these images, with pip.", show_default="the official Python image")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything up for other clients until Ctrl-C.")] = False,
    update: Annotated[
        bool,
        typer.Option("--update", help="Also edit the code and a setting, deploy those, destroy, deploy anew."),
    ] = False,
    new_account: Annotated[
        bool, typer.Option("--new-account", help="With a new account's quotas: what goes beyond them is refused.")
    ] = False,
    photos: Annotated[
        list[Path] | None, typer.Option(exists=True, help="More pictures (files or folders) to classify.")
    ] = None,
    none: Annotated[
        bool, typer.Option("--none", help="The --photos show none of the classes: count how many are refused.")
    ] = False,
    hold_out: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Keep N classes from training: count how many of theirs are refused."),
    ] = 0,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for report.html and rehearsal.json.")] = Path(
        "rehearsal"
    ),
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

      kennel rehearse --update
    """
    given = dict(locals())
    require_repository("The rehearsal")
    if keep and update:
        raise KennelError("--update ends with a stage that has no model, so --keep has nothing to keep up.")
    if none and not photos:
        raise KennelError("--none says that the pictures of --photos show none of the classes; give --photos FOLDER.")
    if none and hold_out:
        raise KennelError("--none and --hold-out count different pictures; give one of the two.")
    stack_name(stage, "")  # a wrong name is an error before the embedded AWS is imported, which takes a second
    from kennel.rehearsal.cloud.clients import forget_settings

    forget_settings()
    from kennel.rehearsal.rehearse import rehearse as run

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stop by SIGTERM cleans up as Ctrl-C does
    run(Options(**{**given, "photos": tuple(photos or ())}))


def overrides(options: Options, tree: Tree) -> dict[str, str]:
    """Return the pipeline parameters, by name, that the rehearsal of the data `tree` sets in place of the defaults."""
    size = image_size([image.path for image in tree.images])
    hyperparameters = {"image_size": str(size), **options.hyperparameters}
    found = {
        "InstanceCount": str(options.instances),
        "TuneTrials": str(options.tune),
        "Spot": "true" if options.spot else "false",
        "Duplicates": options.duplicates,
        "AccuracyThreshold": f"{threshold(options, len(tree.classes)):.4g}",
    }
    if options.data is not None or options.threshold is not None:
        # Nobody knows how hard the classes of unknown data are; the digits must pass the deployed threshold.
        found["WorstClassesThreshold"] = "0"
    return {parameter_name(name): value for name, value in hyperparameters.items()} | found


def threshold(options: Options, classes: int) -> float:
    """Return what the gate requires of the accuracy interval's lower end: 0.9 for digits, else 1 / classes."""
    if options.threshold is not None:
        return options.threshold
    return 0.9 if options.data is None else 1 / classes


def image_size(files: Sequence[Path]) -> int:
    """Return the smallest usual size, in pixels, not below the median of the images' shorter sides; at most 224."""
    sample = random.Random(0).sample(files, min(_SAMPLE, len(files)))
    sides = [side for file in sample if (side := _shorter_side(file))]
    own = statistics.median(sides) if sides else _SIZES[-1]
    return next((size for size in _SIZES if size >= own), _SIZES[-1])


def _shorter_side(file: Path) -> int:
    """Return the shorter side in pixels, 0 for a file that cannot be read as an image."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return min(image.size)
    except Exception:  # Pillow's parsers raise nearly anything for odd bytes; Prepare says what is wrong with them
        return 0
