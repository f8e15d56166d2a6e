"""`kennel rehearse`."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from kennel.commands.common import Stage, one_sentence


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
    with one_sentence():
        from kennel.rehearsal.options import Options

        options = Options(**{**given, "photos": tuple(photos or ())})  # checked before half of AWS is imported
        from kennel.rehearsal.rehearse import rehearse as run

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stop by SIGTERM cleans up as Ctrl-C does
        run(options)
