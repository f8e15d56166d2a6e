"""`kennel compare`: a table of past runs, narrow enough for 80 columns, and a recommendation for the next."""

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kennel.aws import client
from kennel.compare.records import Found, Run, gather
from kennel.console import AsJson, Stage, duration, print_json, say
from kennel.prices import Prices, dollars, read_prices

_LIKE = 1.25  # a run of this size: at most this factor larger or smaller
_FEW = 2  # runs of one kind below which a figure is one observation


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


@dataclass(frozen=True)
class Expected:
    """The expected time and cost of a run on one kind of machine: medians over `runs` records."""

    launcher: str
    place: str
    seconds: float
    cost: float | None
    runs: int


def expectations(runs: Sequence[Run], *, images: int, epochs: int, mode: str) -> list[Expected]:
    """Return one entry per launcher and machine with records in this mode, scaled by `factor`."""
    kinds: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        if run.mode == mode and run.images > 0 and run.seconds > 0:
            by = factor(run, images, epochs)
            cost = None if run.cost is None else run.cost * by
            kinds[run.launcher, run.place].append(replace(run, seconds=run.seconds * by, cost=cost))
    found = []
    for kind, group in kinds.items():
        costs = [run.cost for run in group if run.cost is not None]
        seconds = statistics.median(run.seconds for run in group)
        found.append(Expected(*kind, seconds, statistics.median(costs) if costs else None, len(group)))
    return found


def factor(run: Run, images: int, epochs: int) -> float:
    """Return the expected time over the run's: it grows with the images and with the epochs.

    In head mode an epoch takes a second, so there epochs do not count.
    """
    more_epochs = epochs / run.epochs if run.mode != "head" and run.epochs and epochs else 1.0
    return images / run.images * more_epochs


def advise(runs: Sequence[Run], images: int = 0) -> str:
    """Return one or two sentences: the cheapest and the fastest for `images` (0: as many as the newest run had)."""
    usable = [run for run in runs if run.images > 0 and run.seconds > 0]
    if not usable:
        return "There is no record of a finished run yet, so there is nothing to recommend."
    newest = max(usable, key=lambda run: run.started)
    size = images or newest.images
    expected = expectations(usable, images=size, epochs=newest.epochs, mode=newest.mode)
    return f"{_best(expected, size, newest.mode)} {_evidence(usable, expected, size, newest.mode)}"


def _best(expected: Sequence[Expected], images: int, mode: str) -> str:
    paid = [one for one in expected if one.launcher != "local" and one.cost is not None]
    fastest = min(expected, key=lambda one: one.seconds)
    head = f"For {images:,} images ({mode} mode)"
    if not paid:
        return f"{head} the fastest is {_described(fastest)}; no run on AWS has a known cost to compare with."
    cheapest = min(paid, key=lambda one: one.cost or 0.0)
    if cheapest is fastest:
        return f"{head} the cheapest on AWS and the fastest of all is {_described(cheapest)}."
    return f"{head} the cheapest on AWS is {_described(cheapest)}; the fastest is {_described(fastest)}."


def _described(one: Expected) -> str:
    cost = "" if one.launcher == "local" else f" and {dollars(one.cost)}"
    name = "this machine" if one.launcher == "local" else f"{one.launcher} on {one.place}"
    return f"{name} (about {duration(one.seconds)}{cost})"


def _evidence(runs: Sequence[Run], expected: Sequence[Expected], images: int, mode: str) -> str:
    like = [run for run in runs if run.mode == mode]
    near = sum(1 / _LIKE <= run.images / images <= _LIKE for run in like)
    count = f"{len(like)} run{'s' * (len(like) != 1)}"
    size = f"{near} of this size" if near else "none of this size, so the figures are scaled by the number of images"
    kinds = "" if len(expected) > 1 else "; there is only one kind of run, so nothing to choose between"
    thin = " Each kind has a single run: take it as a hint." if max(one.runs for one in expected) < _FEW else ""
    return f"This rests on {count}, {size}{kinds}.{thin}"
