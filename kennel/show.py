"""How results look: tables on a terminal, plain text in a file, JSON for programs."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from kennel.status import Execution, Status
from kennel.upload.upload import Progress as Report
from kennel.upload.upload import Upload

_BAR = 24  # characters of a probability of 1
_DOING = {"read": "Reading", "send": "Sending"}
_COLOURS = {"Succeeded": "green", "Approved": "green", "InService": "green", "Failed": "red", "Rejected": "red"}


@contextmanager
def transfer() -> Iterator[Report]:
    """Yield a progress callback that draws bars on stderr, and nothing where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def report(doing: str, done: int, total: int) -> None:
            if doing not in tasks:
                tasks[doing] = progress.add_task(_DOING.get(doing, doing), total=total)
            progress.update(tasks[doing], completed=done)

        yield report


def show_upload(sent: Upload, bucket: str, stage: str, *, as_json: bool) -> None:
    if as_json:
        return _print_json({**dataclasses.asdict(sent), "bucket": bucket})
    console = _console()
    console.print(f"{sent.images:,} images of {len(sent.classes)} classes ({sent.bytes / 1e6:,.1f} MB)", markup=False)
    if sent.left_out:
        console.print(f"Left out, since they are no images: {_few(sent.left_out)}", markup=False)
    console.print(f"s3://{bucket}/{sent.manifest_key}", markup=False, soft_wrap=True)
    started = f"The pipeline starts now: `kennel status --stage {stage}` follows it."
    console.print(
        started if sent.new else "This data was there already, so nothing starts; `--again` starts the pipeline."
    )


def show_answer(answer: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        return _print_json(answer)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    table.add_column()
    for one in answer["predictions"]:
        share = float(one["probability"])
        table.add_row(escape(str(one["label"])), f"{share:.1%}", f"[cyan]{'█' * round(share * _BAR)}[/]")
    console = _console()
    if answer.get("label", "") is None:  # a function of an older release names no label
        console.print(_none_of_these(answer["predictions"][0], answer["threshold"]), markup=False, style="bold")
    console.print(table)
    console.print(f"model {answer.get('model') or 'unnamed'}", markup=False, style="dim", soft_wrap=True)


def _none_of_these(best: Mapping[str, Any], threshold: float) -> str:
    share = best["probability"]
    # As many digits as it takes to see that one is below the other.
    shown = ((f"{100 * share:.{digits}f} %", f"{100 * threshold:.{digits}f} %") for digits in range(15))
    mine, least = next((pair for pair in shown if pair[0] != pair[1]), (f"{share}", f"{threshold}"))
    return f"None of these (best guess {best['label']} {mine}, below {least})"


def show_status(status: Status, *, as_json: bool) -> None:
    if as_json:
        return _print_json({**dataclasses.asdict(status), "next": status.next})
    console = _console()
    if status.stacks:
        console.print(_grid("Stack", status.stacks.items()))
        console.print(_grid("Endpoint", [("status", status.endpoint or "none: no model is released yet")]))
    for run in status.executions:
        console.print(_grid(f"Pipeline run {run.name}", _lines(run)))
    if status.packages:
        rows = [(f"version {one.version}", one.approval + (", live" if one.live else "")) for one in status.packages]
        console.print(_grid("Models", rows))
    console.print(f"→ {status.next}", markup=False, style="bold", soft_wrap=True)


def show_findings(findings: Sequence[Any]) -> None:
    """Each finding has `ok`, `what` and `detail`."""
    console = _console()
    for one in findings:
        mark, style = ("✓", "green") if one.ok else ("✗", "red")
        console.print(Text(f"{mark} {one.what}", style=style) + Text(f"  {one.detail}", style=""), soft_wrap=True)
    wrong = sum(not one.ok for one in findings)
    console.print(f"{wrong} of {len(findings)} checks failed." if wrong else f"All {len(findings)} checks passed.")


def _lines(run: Execution) -> Iterator[tuple[str, str]]:
    when = f" since {run.started:%Y-%m-%d %H:%M}" if run.started else ""
    yield "status", run.status + (f": {run.reason}" if run.reason else when)
    for name, status, reason in run.steps:
        yield f"  {name}", status + (f": {reason}" if reason else "")


def _grid(title: str, rows: Any) -> Table:
    table = Table(box=None, pad_edge=False, title=escape(title), title_justify="left", title_style="bold")
    table.show_header = False
    for name, text in rows:
        colour = _COLOURS.get(text.split(":")[0].split(",")[0], "")
        table.add_row(escape(name), f"[{colour}]{escape(text)}[/]" if colour else escape(text))
    return table


def _console() -> Console:
    return Console(highlight=False)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
