"""`kennel invoke`."""

import os
from typing import Annotated

import typer

from kennel.commands.common import AsJson, Stage, one_sentence


def invoke(
    picture: Annotated[
        str | None, typer.Argument(metavar="IMAGE|URL|S3-URI", help="File, https:// or s3:// address.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, max=1000, help="How many classes to name.", show_default="5")
    ] = None,
    stage: Stage = "Dev",
    as_json: AsJson = False,
    page: Annotated[bool, typer.Option("--page", help="Serve a page on loopback to drop photos on.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page.", show_default="any free one")] = 0,
) -> None:
    """Ask the deployed function what is on a picture.

    [bold]Examples[/]

      kennel invoke rex.jpg

      kennel invoke https://example.org/rex.jpg --top-k 3

      kennel invoke s3://BUCKET/photos/rex.jpg --stage Prod --json

      kennel invoke --page
    """
    if (picture is None) is not page:
        raise typer.BadParameter("Give either a picture (IMAGE, URL or S3-URI) or --page.")
    with one_sentence():
        if picture is None:
            return _serve(stage, port)
        from kennel.aws import client, output
        from kennel.invoke import classify, payload
        from kennel.show import show_answer

        event = payload(picture, top_k)
        function = output(stage, "Classify", "FunctionAliasArn")
        show_answer(classify(client("lambda"), function, event), as_json=as_json)


def _serve(stage: str, port: int) -> None:
    """Until Ctrl-C or SIGTERM."""
    from kennel.aws import client, output
    from kennel.page import Target, serve_until_stopped

    function = output(stage, "Classify", "FunctionAliasArn")
    # Nobody plays the HTTP API where AWS is an embedded one.
    api_url = "" if "AWS_ENDPOINT_URL" in os.environ else output(stage, "Classify", "ApiUrl")
    who = f"It asks the function of {stage} with your credentials. Ctrl-C ends it."
    target = Target(stage, function, client("lambda"), api_url)
    serve_until_stopped(target, port, lambda address: typer.echo(f"Drop a photo on {address}\n{who}"))
