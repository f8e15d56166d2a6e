"""What the functions are made of: grammar of the oldest and the runtime's Python, and nothing the runtime lacks."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "lambda"
FILES = sorted(FOLDER.rglob("*.py"))
CARRIED = {"boto3", "botocore"}


def imports(path: Path) -> set[str]:
    """The top-level names of all packages that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module
            found.add(node.module.partition(".")[0])
    return found


def test_the_files_are_found() -> None:
    assert {"classify/handler.py", "promote/handler.py"} <= {str(path.relative_to(FOLDER)) for path in FILES}


@pytest.mark.parametrize("minor", [11, 14])
def test_each_file_is_in_the_grammar_of_python(minor: int) -> None:
    for path in FILES:
        ast.parse(path.read_text(), str(path), feature_version=(3, minor))


def test_nothing_is_imported_that_the_runtime_does_not_carry() -> None:
    for path in FILES:
        room = path.relative_to(FOLDER).parts[0]
        assert imports(path) <= set(sys.stdlib_module_names) | CARRIED | {room}, path


def test_one_module_of_each_function_holds_boto3() -> None:
    holders = {str(path.relative_to(FOLDER)) for path in FILES if imports(path) & CARRIED}
    assert holders == {
        "classify/aws.py",
        "classify/sagemaker_runtime.py",
        "classify/service.py",
        "promote/stack.py",
        "unregister/aws.py",
    }


@pytest.mark.parametrize("name", ["classify", "promote", "unregister"])
def test_importing_a_handler_does_nothing(name: str) -> None:
    """No client, no thread, no region, no environment: those wait for the first event."""
    look = f"import {name}.handler, threading, sys; sys.exit(threading.active_count() - 1)"
    bare = {"PYTHONPATH": str(FOLDER), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", look], env=bare, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
