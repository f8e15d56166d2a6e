"""What all benchmarks share: their options, the machine in one line, tables on standard output, the file of figures."""

import argparse
import json
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kennel.loadtest import subject

Figures = dict[str, Any]
Cell = str | float | None
_WIDTH = 100  # columns, where the terminal has fewer or there is none


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option `--json FILE`; `description` is the benchmark's docstring."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return made


def describe_machine() -> str:
    """Return date, cores, processor with its vector units, memory, system and Python in one line."""
    return (
        f"{date.today().isoformat()}, {subject.describe_machine()}, "
        f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"
    )


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print a table, its first column to the left and the others to the right.

    A float gets two decimals (none from 1,000 on), None a hyphen; a string is printed as it is, so a share or another
    precision is formatted by the caller.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_text, row))
    console = Console(width=max(_WIDTH, shutil.get_terminal_size().columns), highlight=False, markup=False)
    console.print(title, style="bold")  # not the table's own, which would break at the table's width
    console.print(table, "")


def print_targets(figures: Mapping[str, Any], targets: Mapping[str, str]) -> None:
    """Print the figures that have a target, each beside it; `targets` says it in words ("at most 3")."""
    print_table("Targets", ("figure", "measured", "wanted"), [(n, figures[n], target) for n, target in targets.items()])


def write_json(figures: Mapping[str, Any], file: Path | None) -> None:
    """Write the figures where `--json` was given."""
    if file:
        file.write_text(json.dumps(figures, indent=2) + "\n")


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:,.2f}"
    return f"{cell:,}" if isinstance(cell, int) else cell
