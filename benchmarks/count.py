"""Counts the production code: files and lines of Python by folder, what is long, crowded, or there for one importer.

Production code is every tracked .py file outside tests/. Folders count with all below them; kennel, stacks and training
are shown two levels deep.
"""

import ast
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

# As `python -m` has it: so that `benchmarks` is found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib.report import Figures, parser, print_table, write_json  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
_TWO_LEVELS = ("kennel", "stacks", "training")
_CROWDED = 14  # files of one folder, sub-folders not counted
_SHOWN = 5  # names of a list


def main() -> None:
    arguments = parser(__doc__).parse_args()
    figures = count(ROOT)
    rows = [(name, files, lines) for name, (files, lines) in figures["folders"].items()]
    print_table("Python without tests", ("folder", "files", "lines"), [*rows, ("all", *figures["all"])])
    print(f"file: median {figures['median']} lines, longest {figures['longest'][0]} ({figures['longest'][1]})")
    print(f"folders of more than {_CROWDED} files: {_names(figures['crowded'])}")
    print(f"files with one importer: {len(figures['one_importer'])}: {_names(figures['one_importer'])}")
    write_json(figures, arguments.json)


def count(root: Path) -> Figures:
    """Return the counts of the repository at `root`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    sources = {
        name: (root / name).read_text(encoding="utf-8")
        for name in sorted(filter(None, listed))
        if not name.startswith("tests/") and (root / name).is_file()
    }
    lines = {name: text.count("\n") for name, text in sources.items()}
    longest = max(lines, key=lambda name: lines[name])
    here = Counter(os.path.dirname(name) for name in lines)  # noqa: PTH120  (of a name, not of a file)
    return {
        "folders": by_folder(lines),
        "all": (len(lines), sum(lines.values())),
        "median": round(statistics.median(lines.values())),
        "longest": (longest, lines[longest]),
        "crowded": [f"{folder} ({files})" for folder, files in sorted(here.items()) if files > _CROWDED],
        "one_importer": one_importer(sources),
    }


def by_folder(lines: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return files and lines of each folder, with all that is below it."""
    files, total = Counter[str](), Counter[str]()
    for name, number in lines.items():
        parts = PurePosixPath(name).parts[:-1] or (name,)
        depths = (1, 2) if parts[0] in _TWO_LEVELS and len(parts) > 1 else (1,)
        for depth in depths:
            folder = "/".join(parts[:depth])
            files[folder] += 1
            total[folder] += number
    return {folder: (files[folder], total[folder]) for folder in sorted(files)}


def one_importer(sources: Mapping[str, str]) -> list[str]:
    """Return the files that exactly one other production file imports; `__init__` and `__main__` do not count."""
    modules = {_module(name): name for name in sources}
    importers: dict[str, set[str]] = {name: set() for name in sources}
    for name, text in sources.items():
        for imported in _imported(text, _module(name)):
            target = modules.get(imported)
            if target and target != name:
                importers[target].add(name)
    special = ("__init__.py", "__main__.py")
    return [name for name, by in importers.items() if len(by) == 1 and not name.endswith(special)]


def _module(name: str) -> str:
    """Return the dotted name under which a file is imported; lambda/ is a folder of packages, not one itself."""
    path = PurePosixPath(name.removeprefix("lambda/")).with_suffix("")
    return ".".join(path.parent.parts if path.name == "__init__" else path.parts)


def _imported(text: str, module: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(module.split(".")[: -node.level]) if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < node.value.count(".") < 5:
            yield node.value  # a module that is started or imported by its name


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"


if __name__ == "__main__":
    main()
