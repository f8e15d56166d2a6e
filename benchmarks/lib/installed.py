"""How much disk a server's packages take, as they are installed here."""

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# An image for a CPU would not carry them.
_CUDA = re.compile(r"^(nvidia|cuda|triton)")
_CUDA_FILES = re.compile(r"(cuda|nvrtc|nvshmem|nccl|cudnn|cupti).*\.so")


def listed(requirements: Path) -> list[str]:
    """The names in a requirements file in which each stands for itself, those of files that it names (-r) included."""
    lines = [line.split("#")[0].strip() for line in requirements.read_text("utf-8").splitlines()]
    others = [name for line in lines if line.startswith("-r ") for name in listed(requirements.with_name(line[3:]))]
    return others + [Requirement(line).name for line in lines if line and not line.startswith("-r ")]


def with_dependencies(names: Iterable[str], folder: Path | None = None) -> list[str]:
    """These and what they ask for, as far as it is installed in `folder` or the environment; nothing of CUDA."""
    there, todo, found = _there(folder), [canonicalize_name(name) for name in names], set[str]()
    while todo:
        name = todo.pop()
        if name in found or name not in there or _CUDA.match(name):
            continue
        found.add(name)
        wanted = [Requirement(text) for text in there[name].requires or ()]
        todo += [canonicalize_name(one.name) for one in wanted if not one.marker or one.marker.evaluate({"extra": ""})]
    return sorted(found)


def megabytes(names: Iterable[str], folder: Path | None = None) -> float:
    """Millions of bytes of all their files, compiled ones included, without CUDA's libraries."""
    there = _there(folder)
    return sum(_bytes(there[canonicalize_name(name)]) for name in names) / 1e6


def _there(folder: Path | None) -> dict[str, Distribution]:
    path = [*([str(folder)] if folder else []), *sys.path]
    there: dict[str, Distribution] = {}
    for one in distributions(path=path):
        there.setdefault(canonicalize_name(one.metadata["Name"]), one)
    return there


def _bytes(one: Distribution) -> int:
    paths = [Path(str(file.locate())) for file in one.files or () if not _CUDA_FILES.search(file.name)]
    return sum(path.stat().st_size for path in paths if path.is_file())
