"""The command `kennel`. Errors are one sentence on stderr: exit code 1 for what went wrong, 2 for wrong usage."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from kennel.errors import KennelError

app = typer.Typer(
    name="kennel",
    help="Put an image classifier into production on AWS, and rehearse all of it on this machine first.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Stage = Annotated[str, typer.Option(help="Stage of the app: Dev or Prod.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command()
def upload(
    folder: Annotated[Path, typer.Argument(help="Class folders, or train/valid/test of class folders.")],
    name: Annotated[str, typer.Option(help="Name of the data set.", show_default="the folder's")] = "",
    weights: Annotated[
        Path | None, typer.Option(help="Pretrained torchvision state_dict (.pth) to start from.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Start the pipeline even if this very data is there.")] = False,
    stage: Stage = "Dev",
    as_json: AsJson = False,
) -> None:
    """Send a folder of images to the data bucket, which starts the pipeline.

    The folder is checked first. An interrupted upload starts nothing; run it again and it goes on where it stopped.

    [bold]Examples[/]

      kennel upload dogs

      kennel upload dogs --name breeds --weights resnet50.pth --stage Prod
    """
    with _one_sentence():
        from kennel.aws import client, output
        from kennel.folder import look_at
        from kennel.show import show_upload, transfer
        from kennel.upload import upload_dataset

        look_at(folder)  # what is wrong with the folder is said before AWS is asked for anything
        bucket = output(stage, "Data", "DataBucketName")
        with transfer() as progress:
            sent = upload_dataset(
                folder, bucket=bucket, s3=client("s3"), name=name, weights=weights, again=again, progress=progress
            )
        show_upload(sent, bucket, stage, as_json=as_json)


@app.command()
def invoke(
    picture: Annotated[str, typer.Argument(metavar="IMAGE|URL|S3-URI", help="File, https:// or s3:// address.")],
    top_k: Annotated[
        int | None, typer.Option(min=1, max=1000, help="How many classes to name.", show_default="5")
    ] = None,
    stage: Stage = "Dev",
    as_json: AsJson = False,
) -> None:
    """Ask the deployed function what is on a picture.

    [bold]Examples[/]

      kennel invoke rex.jpg

      kennel invoke https://example.org/rex.jpg --top-k 3

      kennel invoke s3://BUCKET/photos/rex.jpg --stage Prod --json
    """
    with _one_sentence():
        from kennel.aws import client, output
        from kennel.invoke import classify, payload
        from kennel.show import show_answer

        event = payload(picture, top_k)
        function = output(stage, "Classify", "FunctionAliasArn")
        show_answer(classify(client("lambda"), function, event), as_json=as_json)


@app.command()
def status(stage: Stage = "Dev", as_json: AsJson = False) -> None:
    """Show stacks, pipeline runs, models and the endpoint, and say what to do next.

    [bold]Examples[/]

      kennel status

      kennel status --stage Prod --json
    """
    with _one_sentence():
        from kennel.aws import client
        from kennel.show import show_status
        from kennel.status import gather

        show_status(gather(stage, client), as_json=as_json)


@app.command()
def rehearse(
    data: Annotated[
        Path | None, typer.Option(help="Folder of class folders.", show_default="handwritten digits")
    ] = None,
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
    with _one_sentence():
        from kennel.rehearsal.options import Options

        options = Options(**{**given, "photos": tuple(photos or ())})  # checked before half of AWS is imported
        from kennel.rehearsal.rehearse import rehearse as run

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stop by SIGTERM cleans up as Ctrl-C does
        run(options)


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Say errors that the operator can do something about without a traceback (KENNEL_DEBUG=1 shows it)."""
    try:
        yield
    except KennelError as error:
        if os.environ.get("KENNEL_DEBUG"):
            raise
        _fail(f"kennel: {error}", 1)
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        _fail("kennel: stopped.", 130)
    except BrokenPipeError:
        # The reader (`| head`) has gone; without this Python would complain at exit about the flush of stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except Exception as error:
        if os.environ.get("KENNEL_DEBUG"):
            raise
        _fail(f"kennel: {type(error).__name__}: {error} (KENNEL_DEBUG=1 shows where)", 1)


def _fail(text: str, code: int) -> None:
    typer.echo(text, err=True)
    raise typer.Exit(code)
