"""`kennel invoke`."""

from typing import Annotated

import typer

from kennel.commands.common import AsJson, Stage, one_sentence


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
    with one_sentence():
        from kennel.aws import client, output
        from kennel.invoke import classify, payload
        from kennel.show import show_answer

        event = payload(picture, top_k)
        function = output(stage, "Classify", "FunctionAliasArn")
        show_answer(classify(client("lambda"), function, event), as_json=as_json)
