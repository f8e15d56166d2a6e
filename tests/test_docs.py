"""README and docs say what the code has: settings, commands, files and links, in both directions."""

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
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _section(title: str) -> str:
    return re.split(r"^## ", README, flags=re.M)[[*re.findall(r"^## (.+)$", README, flags=re.M)].index(title) + 1]


def _table(page: str) -> list[list[str]]:
    lines = (ROOT / page).read_text().splitlines()
    rows = [line.strip().strip("|").split(" | ") for line in lines if line.startswith("|")]
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
    assert {row[0]: (row[1], row[2]) for row in _table("docs/settings.md")} == {
        name: (_shown(dev[name]), _shown(prod[name])) for name in dev
    }


def test_the_table_of_make_targets_is_the_makefile() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.M)
    assert {row[0].removeprefix("make ") for row in _table("docs/commands.md") if row[0].startswith("make ")} == set(
        targets
    )


def test_the_table_of_kennel_commands_is_the_command() -> None:
    commands = {command.name for command in app.registered_commands}
    assert {
        row[0].removeprefix("kennel ") for row in _table("docs/commands.md") if row[0].startswith("kennel ")
    } == commands


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_file_that_a_page_links_exists(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


# An entry of decisions.md may name what is gone since.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "decisions.md"], ids=lambda page: page.name)
def test_every_file_of_the_repository_that_a_page_names_exists(page: Path) -> None:
    folders = "|".join(re.findall(r"^(\w+)/ ", _section("Where things are"), flags=re.M))
    named = re.findall(rf"`(?:python )?((?:{folders})/[\w/.-]*\w)", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_page_and_schema_of_the_contracts_is_listed() -> None:
    folder = ROOT / "docs" / "contracts"
    listed = set(re.findall(r"\]\(([^)]+)\)", (folder / "README.md").read_text()))
    assert listed == {file.name for file in folder.iterdir()} - {"README.md"}


def test_the_decisions_are_numbered_and_their_index_is_whole() -> None:
    text = (ROOT / "docs" / "decisions.md").read_text()
    entries = re.findall(r"^## (\d+) · (\w+) · (.+) \(\d{4}-\d\d-\d\d\)$", text, flags=re.M)
    assert [int(number) for number, _, _ in entries] == [*range(1, len(entries) + 1)]
    assert len(entries) == len(re.findall(r"^## ", text, flags=re.M))
    index = {row[0]: row[1].split("<br>") for row in _table("docs/decisions.md")}
    areas = {area for _, area, _ in entries}
    assert index == {area: [f"{n} · {title}" for n, one, title in entries if one == area] for area in areas}


def test_the_readme_can_be_read_in_a_few_minutes() -> None:
    assert len(README.splitlines()) < 180


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
