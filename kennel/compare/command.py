"""`kennel compare`: a table of past runs, narrow enough for 80 columns, and a recommendation for the next."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kennel.aws import client
from kennel.compare.advice import advise
from kennel.compare.records import Found, Run, gather
from kennel.console import AsJson, Stage, duration, print_json, say
from kennel.prices import Prices, dollars, read_prices


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


def show(found: Found, images: int, prices: Prices, *, as_json: bool) -> None:
    advice = advise(found.runs, images or found.newest_images)
    if as_json:
        return print_json(
            {
                "runs": [dataclasses.asdict(run) for run in found.runs],
                "unread": found.unread,
                "without_aws": found.without_aws,
                "advice": advice,
            }
        )
    console = Console(highlight=False)
    if found.runs:
        console.print(_table(found.runs))
        say(console, prices.note(found.region))
    if found.without_aws:
        say(console, f"Only runs on this machine are compared: {found.without_aws}")
    for where in found.unread:
        say(console, f"Not read, since it is incomplete or of another version: {where}")
    say(console, advice)


def _table(runs: list[Run]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("run", "images", "time\n(billed)", "cost", "accuracy\n(95 %)"):
        table.add_column(title, justify="left" if title == "run" else "right", no_wrap=True)
    table.add_column("worst classes", overflow="fold")
    for run in runs:
        table.add_row(*map(Text, _cells(run)))
    return table


def _cells(run: Run) -> tuple[str, ...]:
    billed = f"\n({duration(run.billable_seconds)})" if run.launcher != "local" else ""
    return (
        f"{run.launcher}\n{run.place}\n{run.started[:16].replace('T', ' ')}",
        f"{run.images:,}\n{run.epochs} epochs\n{run.mode}",
        duration(run.seconds) + billed,
        "none" if run.launcher == "local" else dollars(run.cost),
        f"{run.accuracy:.1%}\n{100 * run.low:.1f} to {100 * run.high:.1f}",
        "\n".join(f"{name} {recall:.0%}" for name, recall in run.worst),
    )
