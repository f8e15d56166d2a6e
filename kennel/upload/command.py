"""`kennel upload`."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from kennel.aws import client, output
from kennel.console import AsJson, Stage, print_json
from kennel.upload.folder import scan_folder
from kennel.upload.upload import Progress as Report
from kennel.upload.upload import Upload, upload_dataset

_DOING = {"read": "Reading", "send": "Sending"}


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
    scan_folder(folder)  # what is wrong with the folder is said before AWS is asked for anything
    bucket = output(stage, "Data", "DataBucketName")
    with transfer() as progress:
        sent = upload_dataset(
            folder, bucket=bucket, s3=client("s3"), name=name, weights=weights, again=again, progress=progress
        )
    show_upload(sent, bucket, stage, as_json=as_json)


@contextmanager
def transfer() -> Iterator[Report]:
    """Yield a progress callback that draws bars on stderr, and nothing where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def report(doing: str, done: int, total: int) -> None:
            if doing not in tasks:
                tasks[doing] = progress.add_task(_DOING.get(doing, doing), total=total)
            progress.update(tasks[doing], completed=done)

        yield report


def show_upload(sent: Upload, bucket: str, stage: str, *, as_json: bool) -> None:
    if as_json:
        return print_json({**dataclasses.asdict(sent), "bucket": bucket})
    console = Console(highlight=False)
    console.print(f"{sent.images:,} images of {len(sent.classes)} classes ({sent.bytes / 1e6:,.1f} MB)", markup=False)
    if sent.left_out:
        console.print(f"Left out, since they are no images: {_few(sent.left_out)}", markup=False)
    console.print(f"s3://{bucket}/{sent.manifest_key}", markup=False, soft_wrap=True)
    started = f"The pipeline starts now: `kennel status --stage {stage}` follows it."
    console.print(
        started if sent.new else "This data was there already, so nothing starts; `--again` starts the pipeline."
    )


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
