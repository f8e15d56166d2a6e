"""The wheel, installed into an empty environment and used outside the repository."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from kennel.cli import COMMANDS
from kennel.rehearsal.samples import write_digits
from tests.conftest import KeptRehearsal

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTP", "http"))}
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "COLUMNS": "200", **inherited}
    return subprocess.run(
        [*map(str, command)], cwd=folder, env=environment | variables, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def kennel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the command of an environment that has nothing but the wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: setuptools leaves build/ and *.egg-info beside what it builds.
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.rstrip("\0").split("\0"):
        packed = name.startswith(("kennel/", "training/", "pyproject.toml", "README.md", "LICENSE"))
        if packed and (ROOT / name).is_file():
            copy = folder / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--wheel-dir", folder)
    built = run(*pip, folder / "source", folder=folder)
    assert built.returncode == 0, built.stderr
    venv.create(folder / "env", with_pip=True)
    (wheel,) = folder.glob("*.whl")
    installed = run(folder / "env" / "bin" / "pip", "install", "--quiet", wheel, folder=folder)
    assert installed.returncode == 0, installed.stderr
    return folder / "env" / "bin" / "kennel"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_works_in_an_empty_environment(kennel: Path, tmp_path: Path, command: str) -> None:
    done = run(kennel, *command.split(), "--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"kennel {command}".strip() in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["rehearse"],
        ["train", "--local", "dogs"],
        ["loadtest", "model.tar.gz"],
    ],
)
def test_what_needs_the_repository_says_so_in_one_sentence(kennel: Path, tmp_path: Path, arguments: list[str]) -> None:
    done = run(kennel, *arguments, folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "needs Kennel's repository: clone it, run `make env` and use its .venv/bin/kennel." in done.stderr


def test_commands_that_need_no_repository_get_as_far_as_aws(kennel: Path, tmp_path: Path) -> None:
    nobody = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1"}
    nobody |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.png").write_bytes(b"a picture")
    (tmp_path / "x.jpg").write_bytes(b"a picture")
    for arguments in (
        ["upload", "data"],
        ["train", "--stage", "Dev", "--yes"],
        ["invoke", "x.jpg"],
        ["invoke", "--page"],
        ["status"],
        ["verify", "s3://bucket/model.tar.gz"],
        ["loadtest", "--stage", "Dev"],
    ):
        done = run(kennel, *arguments, folder=tmp_path, **nobody)
        assert done.returncode == 1, (arguments, done.stderr)
        assert "127.0.0.1:9" in done.stderr, (arguments, done.stderr)
    done = run(kennel, "compare", folder=tmp_path, **nobody)
    assert (done.returncode, "nothing to recommend" in done.stdout) == (0, True)


def test_the_page_and_its_style_are_in_the_wheel(kennel: Path, tmp_path: Path) -> None:
    code = "from kennel.page import server; print(all(file.is_file() for file, _ in server._FILES.values()))"
    done = run(kennel.parent / "python", "-c", code, folder=tmp_path)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_the_installed_command_reads_and_invokes_a_kept_rehearsal(
    kennel: Path, kept_rehearsal: KeptRehearsal, tmp_path: Path
) -> None:
    status = run(kennel, "status", folder=tmp_path, **kept_rehearsal.environment)
    assert (status.returncode, status.stderr) == (0, "")
    assert "InService" in status.stdout
    photo = next((write_digits(tmp_path / "digits") / "test/three").glob("*.png"))
    releases = json.loads(run(kennel, "releases", "--json", folder=tmp_path, **kept_rehearsal.environment).stdout)
    # Other tests of this run may have released more with the same rehearsal.
    assert [one["state"] for one in releases].count("live") == 1
    answer = run(kennel, "invoke", photo, "--json", folder=tmp_path, **kept_rehearsal.environment)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert '"predictions"' in answer.stdout
