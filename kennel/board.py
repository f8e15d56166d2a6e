"""One run while it runs: its steps, log lines, metrics and cost. Live on a terminal, line by line anywhere else."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kennel.console import short
from kennel.lines import metrics_of, printable

_MARKS = {"running": "▸", "done": "✓", "failed": "✗", "stopped": "■"}
_STYLES = {"running": "bold", "done": "green", "failed": "red", "stopped": "yellow"}
_EPOCHS = 12  # rows of the live table
_TITLES = {"epoch": "epoch", "valid_accuracy": "accuracy", "images_per_second": "images/s"}


@dataclass
class Row:
    """A step. `began` is on the monotonic clock; `seconds` counts once it has ended."""

    name: str
    status: str
    began: float
    seconds: float = 0.0
    detail: str = ""

    @property
    def shown_seconds(self) -> float:
        return time.monotonic() - self.began if self.status == "running" else self.seconds


class Board:
    """Callable from any thread. Statuses are running, done, failed and stopped."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.rows: dict[str, Row] = {}
        self.epochs: list[tuple[str, dict[str, float]]] = []
        self._cost = ""
        self._lock = threading.RLock()
        self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live.is_started:
            self._live.stop()

    def step(self, name: str, status: str, seconds: float = 0.0, detail: str = "") -> None:
        """Say how a step stands after `seconds`; the same said twice is shown once."""
        with self._lock:
            known = self.rows.get(name)
            if known and known.status == status:
                return
            self.rows[name] = Row(name, status, time.monotonic() - seconds, seconds, detail)
            if not self._live.is_started:
                tail = f": {detail}" if detail else ""
                self._print(f"{name} ..." if status == "running" else f"{_MARKS[status]} {name} {seconds:.1f} s{tail}")

    def line(self, text: str, *, job: str = "") -> None:
        """Take one line of a job's log; `job` tells apart what runs side by side (a trial, a host)."""
        values = metrics_of(text)
        with self._lock:
            if "epoch" in values:
                self.epochs.append((job, values))
            if "trial" in values:
                self._detail(_spoken(values))
            if not (values and self._live.is_started):
                self._print("  " + " ".join(filter(None, (job, _spoken(values) if values else printable(text)))))

    def cost(self, text: str) -> None:
        """Show what the run has cost so far below the table; nothing off a terminal."""
        self._cost = text

    def say(self, text: str) -> None:
        with self._lock:
            self._print(text)

    def _detail(self, text: str) -> None:
        running = [row for row in self.rows.values() if row.status == "running"]
        if running:
            running[-1].detail = text

    def _print(self, text: str) -> None:
        style = "dim" if self._live.is_started and text.startswith(" ") else ""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def _render(self) -> RenderableType:
        # Without our lock: whoever prints holds it and waits for the console's, which the drawing thread has.
        parts: list[RenderableType] = [self._steps()]
        if self.epochs:
            parts.append(epoch_table(self.epochs[-_EPOCHS:]))
        if self._cost:
            parts.append(Text(self._cost, style="cyan"))
        return Group(*parts)

    def _steps(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        for row in list(self.rows.values()):
            name = Text(f"{_MARKS[row.status]} {row.name}", style=_STYLES[row.status])
            detail = Text(printable(row.detail), style="dim", overflow="ellipsis", no_wrap=True)
            table.add_row(name, Text(f"{row.shown_seconds:7.1f} s", style="cyan"), detail)
        return table


def epoch_table(epochs: list[tuple[str, dict[str, float]]]) -> Table:
    """Rows of (job, metrics) as a table that fits 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    several = any(job for job, _ in epochs)
    names = list(dict.fromkeys(name for _, values in epochs for name in values))
    for title in (["job"] if several else []) + [_TITLES.get(name, name.replace("_", " ")) for name in names]:
        table.add_column(title, justify="right")
    for job, values in epochs:
        cells = [short(values[name]) if name in values else "" for name in names]
        table.add_row(*([Text(job)] if several else []), *cells)
    return table


def _spoken(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name.replace('_', ' ')} {short(value)}" for name, value in values.items())
