"""`kennel compare`."""

from pathlib import Path
from typing import Annotated

import typer

from kennel.aws import client
from kennel.compare.gather import gather
from kennel.compare.show import show
from kennel.console import AsJson, Stage
from kennel.prices import read_prices


def compare(
    images: Annotated[
        int, typer.Option(min=0, help="Size to recommend for.", show_default="the newest data set's")
    ] = 0,
    runs: Annotated[Path, typer.Option(help="Folder of the runs on this machine.")] = Path("runs"),
    stage: Stage = "Dev",
    as_json: AsJson = False,
) -> None:
    """Compare past runs (SageMaker, spot, EC2, this machine): time, cost, accuracy; and recommend the next.

    Everything is read from the runs' own records. Without AWS it compares the runs on this machine.

    [bold]Examples[/]

      kennel compare

      kennel compare --images 50000 --stage Prod
    """

    prices = read_prices()
    show(gather(client, stage, runs, prices), images, prices, as_json=as_json)
