"""`kennel upload`."""

from pathlib import Path
from typing import Annotated

import typer

from kennel.commands.common import AsJson, Stage, one_sentence


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
    with one_sentence():
        from kennel.aws import client, output
        from kennel.show import show_upload, transfer
        from kennel.upload.folder import look_at
        from kennel.upload.upload import upload_dataset

        look_at(folder)  # what is wrong with the folder is said before AWS is asked for anything
        bucket = output(stage, "Data", "DataBucketName")
        with transfer() as progress:
            sent = upload_dataset(
                folder, bucket=bucket, s3=client("s3"), name=name, weights=weights, again=again, progress=progress
            )
        show_upload(sent, bucket, stage, as_json=as_json)
