"""`kennel loadtest`."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from kennel.commands.common import AsJson, one_sentence, print_json


def loadtest(
    artifact: Annotated[
        Path | None, typer.Argument(metavar="ARTIFACT", help="model.tar.gz or its folder: a server is started here.")
    ] = None,
    stage: Annotated[str, typer.Option(help="Measure the endpoint of this deployed (or rehearsed) stage.")] = "",
    p99: Annotated[
        float, typer.Option(min=1, max=60_000, help="Milliseconds that 99 of 100 requests must keep.")
    ] = 500,
    seconds: Annotated[
        float, typer.Option(min=1, max=600, help="Length of each try; the last one is twice as long.")
    ] = 20,
    photo: Annotated[
        list[Path] | None, typer.Option(help="Picture to send; repeat it.", show_default="made ones")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the result; stacks/capacity.json decides how the endpoint scales.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the requests per second that one instance holds at a p99 target.

    Requests leave when they are due, whether or not earlier ones were answered; one that fails breaks the target. A
    deployed endpoint must not scale meanwhile: its instances are counted at the start.

    [bold]Examples[/]

      kennel loadtest runs/20261121-120000/output/model.tar.gz

      kennel loadtest --stage Dev --p99 300 --out stacks/capacity.json

      kennel loadtest --stage Prod --photo rex.jpg --photo bella.jpg --seconds 60
    """
    with one_sentence():
        from rich.console import Console

        from kennel.console import Display
        from kennel.loadtest.command import Request, measure, show

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stop by SIGTERM ends the server too
        request = Request(artifact, stage, p99, seconds, tuple(photo or ()), out)
        with Display(Console(stderr=as_json)) as display:  # stdout is for the JSON alone
            measured = measure(request, display)
        if as_json:
            print_json(measured)
        else:
            show(measured, out)
