"""What is seen while something runs: bars on a terminal, plain lines anywhere else."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

Stage = Annotated[str, typer.Option(help="Stage of the app: Dev or Prod.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

_MARKS = {"running": " ", "done": "✓", "failed": "✗"}
_STYLES = {"running": "bold", "done": "green", "failed": "red"}


@dataclass
class Step:
    """One thing that was done. `started` and `seconds` count from the display's start; `depth` is how deep it lies."""

    name: str
    seconds: float = 0.0
    status: str = "running"
    detail: str = ""
    started: float = 0.0
    depth: int = 0


class Display:
    """Shows steps, their progress and their metrics, and remembers them in `steps`. Callable from any thread."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.steps: list[Step] = []
        self._began = time.monotonic()
        self._lock = threading.RLock()
        self._open: list[tuple[Step, Any]] = []
        self._live = self.console.is_terminal
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            _Title(),
            BarColumn(bar_width=20),
            _Seconds(),
            TextColumn("{task.fields[step].detail}", markup=False, style="dim"),
            console=self.console,
            disable=not self._live,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Show `name` as running until the block ends, then as done or failed; set `detail` of what it yields."""
        step, task = self._begin(name)
        try:
            yield step
        except BaseException as error:
            self._end(step, task, "failed", step.detail or _first_line(error))
            raise
        self._end(step, task, "done", step.detail)

    def advance(self, fraction: float) -> None:
        """Move the innermost step's bar to `fraction`, from 0 to 1."""
        with self._lock:
            if self._open:
                self._progress.update(self._open[-1][1], total=1.0, completed=min(max(fraction, 0.0), 0.999))

    def metric(self, values: Mapping[str, float]) -> None:
        """Show `values` (`{"epoch": 3, "valid_accuracy": 0.97}`) as the innermost step's detail."""
        text = "  ".join(f"{name.replace('_', ' ')} {short(value)}" for name, value in values.items())
        with self._lock:
            if self._open:
                self._open[-1][0].detail = text
            if not self._live:
                self.log(text)

    def log(self, text: str) -> None:
        """Print `text` above the bars, word for word."""
        with self._lock:
            indent = "  " * len(self._open)
            self.console.print(Text(indent + text, style="dim" if self._live else ""), soft_wrap=True)

    def _begin(self, name: str) -> tuple[Step, Any]:
        with self._lock:
            step = Step(name, started=time.monotonic() - self._began, depth=len(self._open))
            task = self._progress.add_task(name, total=None, step=step)
            self.steps.append(step)
            if not self._live:
                self.log(f"{name} ...")
            self._open.append((step, task))
            return step, task

    def _end(self, step: Step, task: Any, status: str, detail: str) -> None:
        with self._lock:
            self._open.remove((step, task))
            step.seconds = time.monotonic() - self._began - step.started
            step.status, step.detail = status, detail
            self._progress.update(task, total=1.0, completed=1.0)
            if not self._live:
                tail = f": {detail}" if detail else ""
                self.log(f"{_MARKS[status]} {step.name} {step.seconds:.1f} s{tail}")


class _Title(ProgressColumn):
    def render(self, task: Task) -> Text:
        step: Step = task.fields["step"]
        return Text(f"{'  ' * step.depth}{_MARKS[step.status]} {step.name}", style=_STYLES[step.status])


class _Seconds(ProgressColumn):
    def render(self, task: Task) -> Text:
        step: Step = task.fields["step"]
        return Text(f"{step.seconds or task.elapsed or 0:6.1f} s", style="cyan")


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def short(value: float) -> str:
    """A number for people: whole or large ones without decimals, others with four."""
    return f"{value:.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:.4f}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
