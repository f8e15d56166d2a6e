"""The time and cost that the next run can be expected to take, from the records of past runs."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kennel.compare.records import Run
from kennel.console import duration
from kennel.prices import dollars

_LIKE = 1.25  # a run of this size: at most this factor larger or smaller
_FEW = 2  # runs of one kind below which a figure is one observation


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
