"""The README's tables and commands are what the code has, in both directions."""

import re
import subprocess
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from kennel.cli import app
from stacks.config import DEV, PROD

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def _section(title: str) -> str:
    return re.split(r"^## ", README, flags=re.M)[[*re.findall(r"^## (.+)$", README, flags=re.M)].index(title) + 1]


def _table(title: str) -> list[list[str]]:
    rows = [line.strip().strip("|").split(" | ") for line in _section(title).splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows[2:]]


def _settings(value: Any, other: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in fields(value if value is not None else other):
        mine = getattr(value, field.name) if value is not None else None
        theirs = getattr(other, field.name) if other is not None else None
        nested = mine if is_dataclass(mine) else theirs if is_dataclass(theirs) else None
        name = f"{prefix}{field.name}"
        if nested is None:
            flat[name] = mine
        else:
            flat |= _settings(mine, theirs, f"{name}.")
    return flat


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(getattr(value, "name", value))


def test_the_table_of_settings_is_the_settings() -> None:
    dev, prod = _settings(DEV, PROD), _settings(PROD, DEV)
    assert {row[0]: (row[1], row[2]) for row in _table("Stages and settings")} == {
        name: (_shown(dev[name]), _shown(prod[name])) for name in dev
    }


def test_the_table_of_make_targets_is_the_makefile() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.M)
    assert {row[0].removeprefix("make ") for row in _table("Commands") if row[0].startswith("make ")} == set(targets)


def test_the_table_of_kennel_commands_is_the_command() -> None:
    commands = {command.name for command in app.registered_commands}
    assert {row[0].removeprefix("kennel ") for row in _table("Commands") if row[0].startswith("kennel ")} == commands


def test_every_file_that_the_readme_links_exists() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_every_file_that_the_table_of_changes_names_exists() -> None:
    named = re.findall(r"`([a-z_]+/[\w/.]+)`", _section("Where things are"))
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_top_level_folder_stands_in_the_map() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = {path.split("/")[0] for path in tracked if "/" in path and not path.startswith(".")}
    mapped = re.findall(r"^(\w+)/ ", _section("Where things are"), flags=re.M)
    assert set(mapped) == folders


@pytest.mark.parametrize("command", ["make rehearse", "make test"])
def test_the_two_commands_of_the_quick_start_are_targets(command: str) -> None:
    assert f"\n{command}\n" in _section("Two commands")
    done = subprocess.run(["make", "--dry-run", command.split()[1]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
