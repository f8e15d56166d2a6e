"""What the commands share on the terminal: the display of a run's steps, options, JSON for programs."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Self

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kennel.pipeline_steps import metrics_of, printable

Stage = Annotated[str, typer.Option(help="Stage of the app: Dev or Prod.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

_MARKS = {"running": "▸", "done": "✓", "failed": "✗", "stopped": "■"}
_STYLES = {"running": "bold", "done": "green", "failed": "red", "stopped": "yellow"}
_EPOCHS = 12  # rows of the live table
_TITLES = {"valid_accuracy": "accuracy", "images_per_second": "images/s"}
_BAR = 20  # columns


@dataclass
class Step:
    """One thing that is done. `started` and `seconds` count from the display's start; `depth`: inside how many others.

    `status` is running, done, failed or stopped; `fraction` of a running step is None while nobody knows it.
    """

    name: str
    seconds: float = 0.0
    status: str = "running"
    detail: str = ""
    started: float = 0.0
    depth: int = 0
    fraction: float | None = None


class Display:
    """Shows steps, log lines and metrics: live bars and tables on a terminal, plain lines anywhere else.

    Remembers the steps in `steps`, and the metrics of each epoch with the name of their job in `epochs`. Callable from
    any thread.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.steps: list[Step] = []
        self.epochs: list[tuple[str, dict[str, float]]] = []
        self._footer = ""
        self._depth = 0
        self._began = time.monotonic()
        self._lock = threading.RLock()
        self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=8)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live.is_started:
            self._live.stop()

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Show `name` as running until the block ends, then as done or failed; set `detail` of what it yields."""
        step = self.begin(name)
        self._depth += 1
        status, reason = "done", ""
        try:
            yield step
        except KeyboardInterrupt:
            status = "stopped"
            raise
        except BaseException as error:
            status = "failed"
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise
        finally:
            self._depth -= 1
            self.end(step, status, step.detail or reason)

    def begin(self, name: str, seconds: float = 0.0) -> Step:
        """Show a step that began `seconds` ago, for one that another process takes; `end` ends it."""
        with self._lock:
            step = Step(name, started=self._now - seconds, depth=self._depth)
            if not self._live.is_started:
                self.log(f"{name} ...")
            self.steps.append(step)
            return step

    def end(self, step: Step, status: str, detail: str = "", seconds: float | None = None) -> None:
        """Show that `step` ended as `status`, after `seconds` (None: by our own clock)."""
        with self._lock:
            step.seconds = self._now - step.started if seconds is None else seconds
            step.status, step.detail = status, detail
            if not self._live.is_started:
                tail = f": {detail}" if detail else ""
                self._print(f"{'  ' * step.depth}{_MARKS[status]} {step.name} {step.seconds:.1f} s{tail}")

    def advance(self, fraction: float) -> None:
        """Move the innermost running step's bar to `fraction`, from 0 to 1."""
        if step := self._innermost:
            step.fraction = fraction

    def line(self, text: str, *, job: str = "") -> None:
        """Show one line of a job's log; `job` tells apart what runs side by side (a trial, a host).

        Metrics become a row of the live table (an epoch's) or the running step's detail.
        """
        values = metrics_of(text)
        shown = _metrics_text(values) if values else printable(text)
        with self._lock:
            if "epoch" in values:
                self.epochs.append((job, values))
            if values and (step := self._innermost):
                step.detail = shown
            if not (values and self._live.is_started):
                self.log(" ".join(filter(None, (job, shown))))

    def log(self, text: str) -> None:
        """Print `text` word for word, above what is live."""
        with self._lock:
            step = self._innermost
            self._print("  " * (step.depth + 1 if step else 0) + text)

    def footer(self, text: str) -> None:
        """Show `text` below the tables; nothing off a terminal."""
        self._footer = text

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    @property
    def _innermost(self) -> Step | None:
        return next((step for step in reversed(self.steps) if step.status == "running"), None)

    def _print(self, text: str) -> None:
        style = "dim" if self._live.is_started and text.startswith(" ") else ""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def _render(self) -> RenderableType:
        # Without our lock: whoever prints holds it and waits for the console's, which the drawing thread has.
        parts: list[RenderableType] = [self._table()]
        if self.epochs:
            rows = min(_EPOCHS, max(1, self.console.height - len(self.steps) - 4))
            parts.append(epoch_table(self.epochs[-rows:]))
        if self._footer:
            parts.append(Text(self._footer, style="cyan"))
        return Group(*parts)

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(width=_BAR)
        table.add_column(no_wrap=True, justify="right")
        table.add_column()  # the one that gives way on a narrow terminal
        for step in list(self.steps):
            name = Text(f"{'  ' * step.depth}{_MARKS[step.status]} {step.name}", style=_STYLES[step.status])
            seconds = self._now - step.started if step.status == "running" else step.seconds
            detail = Text(printable(step.detail), style="dim", overflow="ellipsis", no_wrap=True)
            table.add_row(name, self._bar(step), Text(f"{seconds:.1f} s", style="cyan"), detail)
        return table

    def _bar(self, step: Step) -> RenderableType:
        if step.status != "running":
            return ""
        if step.fraction is None:
            return ProgressBar(total=None, pulse=True, width=_BAR, animation_time=self._now)
        return ProgressBar(total=1.0, completed=min(max(step.fraction, 0.0), 1.0), width=_BAR)


def epoch_table(epochs: list[tuple[str, dict[str, float]]]) -> Table:
    """Return rows of (job, metrics) as a table that fits 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    several = any(job for job, _ in epochs)
    names = list(dict.fromkeys(name for _, values in epochs for name in values))
    for title in (["job"] if several else []) + [_TITLES.get(name, name.replace("_", " ")) for name in names]:
        table.add_column(title, justify="right")
    for job, values in epochs:
        cells = [short(values[name]) if name in values else "" for name in names]
        table.add_row(*([Text(job)] if several else []), *cells)
    return table


def one_line(text: str) -> str:
    """Return `text` without line breaks and control characters: the registry takes none, a terminal obeys them."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def say(console: Console, *lines: str) -> None:
    """Print lines as they are: without markup, and broken by the terminal alone."""
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def short(value: float) -> str:
    """Return a number for people: whole or large ones without decimals, others with four."""
    return f"{value:.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:.4f}"


def duration(seconds: float) -> str:
    """Return a duration for people: 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{round(seconds / 3600, 1):g} h"


def _metrics_text(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name.replace('_', ' ')} {short(value)}" for name, value in values.items())
