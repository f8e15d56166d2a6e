"""Who may import whom (docs/architecture.md), and who may change the endpoint.

Each rule is also shown to catch what it forbids, on a small tree that breaks it.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CDK = ("aws_cdk", "constructs", "cdk_nag", "cdklabs", "jsii")
OURS = ("app", "stacks", "classify", "promote", "probe", "unregister", "training", "inference", "kennel")
TORCH = ("torch", "torchvision")
HYPERPARAMETERS = "training.hyperparameters"  # also what `kennel` reads
LAYOUT = "training.layout"  # likewise
DECLARATIVE = (HYPERPARAMETERS, "training.metrics")  # what `stacks` reads; standard library only


@dataclass(frozen=True)
class Room:
    """A folder (or file) and what it may import of ours, of CDK and of torch; all else is free."""

    path: str
    may: tuple[str, ...]
    but: tuple[str, ...] = ()


PLANES = ("kennel.rehearsal.cloud", "kennel.rehearsal.jobs", "kennel.rehearsal.serving")
ROOMS = (  # the first that holds a file counts
    Room("app.py", ("stacks", *CDK)),
    Room("stacks", ("stacks", *DECLARATIVE, *CDK)),
    Room("lambda/classify", ("classify",)),
    Room("lambda/promote", ("promote",)),
    Room("lambda/probe", ("probe",)),
    Room("lambda/unregister", ("unregister",)),
    Room("training", ("training", *TORCH)),
    Room("inference/on_torch.py", ("inference", *TORCH)),  # imported only where the stage's runtime is torch
    Room("inference", ("inference",)),
    Room("kennel/rehearsal/cloud", ("kennel",), ("kennel.rehearsal.jobs", "kennel.rehearsal.serving")),
    Room("kennel/rehearsal/jobs", ("kennel",), ("kennel.rehearsal.cloud", "kennel.rehearsal.serving")),
    Room("kennel/rehearsal/serving", ("kennel",), ("kennel.rehearsal.cloud", "kennel.rehearsal.jobs")),
    Room("kennel/rehearsal/containers", ("kennel",), PLANES),
    Room("kennel", ("kennel", HYPERPARAMETERS, LAYOUT)),
)


def sources(root: Path, *folders: str) -> Iterator[tuple[str, ast.Module]]:
    """(path inside `root`, syntax tree) of each Python file there."""
    for folder in folders:
        place = root / folder
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place] * place.is_file():
            yield file.relative_to(root).as_posix(), ast.parse(file.read_text("utf-8"))


def imports(path: str, tree: ast.Module) -> Iterator[str]:
    """Full dotted names, also of imports inside functions, relative ones and those of importlib."""
    package = path.removeprefix("lambda/").removesuffix(".py").split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*stem, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            yield from (str(part.value) for part in node.args[:1] if isinstance(part, ast.Constant))


def within(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


def wrong_arrows(root: Path) -> list[str]:
    found = []
    for room in ROOMS:
        for path, tree in sources(root, room.path):
            if next(one for one in ROOMS if path == one.path or path.startswith(one.path + "/")) is not room:
                continue
            for name in imports(path, tree):
                watched = within(name, (*OURS, *CDK, *TORCH))
                if watched and (not within(name, room.may) or within(name, room.but)):
                    found.append(f"{path} imports {name}")
    return found


def foreign_to_declarative(root: Path) -> list[str]:
    files = [name.replace(".", "/") + ".py" for name in DECLARATIVE]
    return [
        f"{path} imports {name}"
        for path, tree in sources(root, "training/__init__.py", *files)
        for name in imports(path, tree)
        if name.split(".")[0] not in sys.stdlib_module_names
    ]


def endpoint_updates(root: Path) -> list[str]:
    """Whoever names boto3's method or CloudFormation's rivals to it; the rehearsal's cloud plays CloudFormation."""
    return [
        f"{path}:{node.lineno}"
        for path, tree in sources(root, "app.py", "stacks", "lambda", "training", "inference", "kennel")
        if not path.startswith("kennel/rehearsal/cloud/")
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr == "update_endpoint")
        or (isinstance(node, ast.Constant) and node.value in ("update_endpoint", "UpdateEndpoint"))
        or (isinstance(node, ast.Attribute) and ast.unparse(node).endswith("Endpoint.update"))
    ]


def plant(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return root


def test_every_arrow_points_as_the_architecture_says() -> None:
    assert wrong_arrows(ROOT) == []


@pytest.mark.parametrize(
    ("path", "text", "name"),
    [
        ("app.py", "import kennel.cli", "kennel.cli"),
        ("stacks/a.py", "from training.train import engine", "training.train.engine"),
        ("stacks/a.py", "from training.metrics_more import x", "training.metrics_more.x"),
        ("stacks/a.py", "import torch", "torch"),
        ("lambda/classify/a.py", "import promote.stack", "promote.stack"),
        ("lambda/classify/a.py", "from aws_cdk import Stack", "aws_cdk.Stack"),
        ("lambda/promote/a.py", "from classify import errors", "classify.errors"),
        ("training/a.py", "def f():\n    from inference.images import decode", "inference.images.decode"),
        ("training/prepare/a.py", "import kennel", "kennel"),
        ("inference/a.py", "import torch.nn", "torch.nn"),
        ("inference/a.py", "import importlib\nimportlib.import_module('training.transform')", "training.transform"),
        ("kennel/a.py", "from stacks.config import PROD", "stacks.config.PROD"),
        ("kennel/train/a.py", "from training.metrics import METRICS", "training.metrics.METRICS"),
        ("kennel/rehearsal/a.py", "import inference", "inference"),
        ("kennel/rehearsal/cloud/a.py", "from ..jobs import run", "kennel.rehearsal.jobs.run"),
        ("kennel/rehearsal/jobs/a.py", "from kennel.rehearsal import serving", "kennel.rehearsal.serving"),
        ("kennel/rehearsal/serving/a.py", "import kennel.rehearsal.cloud.x", "kennel.rehearsal.cloud.x"),
        ("kennel/rehearsal/containers/a.py", "from kennel.rehearsal import jobs", "kennel.rehearsal.jobs"),
    ],
)
def test_an_arrow_against_the_architecture_is_found(tmp_path: Path, path: str, text: str, name: str) -> None:
    assert wrong_arrows(plant(tmp_path, path, text)) == [f"{path} imports {name}"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("stacks/a.py", "from training.metrics import METRICS\nfrom training import hyperparameters\nimport aws_cdk"),
        ("kennel/rehearsal/a.py", "from kennel.rehearsal import cloud, jobs, serving"),
        ("kennel/rehearsal/jobs/a.py", "from . import steps\nfrom kennel.rehearsal import interfaces"),
        ("training/a.py", "import torch\nfrom training.prepare import run"),
        ("kennel/train/a.py", "from training.hyperparameters import Hyperparameters"),
    ],
)
def test_an_arrow_of_the_architecture_is_not(tmp_path: Path, path: str, text: str) -> None:
    assert wrong_arrows(plant(tmp_path, path, text)) == []


def test_what_the_stacks_read_of_training_needs_no_library() -> None:
    assert foreign_to_declarative(ROOT) == []


def test_a_library_in_what_the_stacks_read_is_found(tmp_path: Path) -> None:
    plant(tmp_path, "training/metrics.py", "import re\nimport numpy as np")
    assert foreign_to_declarative(tmp_path) == ["training/metrics.py imports numpy"]


def test_nothing_but_cloudformation_updates_the_endpoint() -> None:
    assert endpoint_updates(ROOT) == []


@pytest.mark.parametrize(
    "text",
    ["client.update_endpoint(EndpointName='x')", "getattr(client, 'update_endpoint')", "sagemaker.Endpoint.update()"],
)
def test_an_update_of_the_endpoint_is_found(tmp_path: Path, text: str) -> None:
    assert endpoint_updates(plant(tmp_path, "lambda/promote/a.py", f"\n{text}")) == ["lambda/promote/a.py:2"]
