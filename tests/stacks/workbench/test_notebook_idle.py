"""The check that stops an idle notebook, run as it runs there: against a Jupyter, with the AWS CLI in PATH."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stacks.workbench.user_data import script
from tests.stacks.workbench.fakes import Commands, as_json, http_answers

pytestmark = pytest.mark.long  # real processes, half a second each and more: not on every save

PROGRAM = Path(__file__).parents[3] / "stacks" / "workbench" / "user_data" / "notebook_idle.py"
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing answers
STOPPED = "aws sagemaker stop-notebook-instance --notebook-instance-name Notebook-7 --region eu-west-1"
Check = Callable[..., subprocess.CompletedProcess[str]]


def ago(minutes: float) -> str:
    """A time as Jupyter writes it."""
    return datetime.fromtimestamp(time.time() - minutes * 60, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    commands = Commands(tmp_path / "bin")
    commands.add("aws")
    return commands


@pytest.fixture
def check(tmp_path: Path, commands: Commands) -> Check:
    """Run the check with a limit of 60 minutes; `seen_minutes` is how long ago somebody was last seen."""
    metadata = tmp_path / "resource-metadata.json"
    arn = "arn:aws:sagemaker:eu-west-1:123456789012:notebook-instance/Notebook-7"
    metadata.write_text(as_json({"ResourceArn": arn, "ResourceName": "Notebook-7"}))

    def run(jupyter: str, seen_minutes: float | None) -> subprocess.CompletedProcess[str]:
        seen = tmp_path / "seen"
        if seen_minutes is not None:
            seen.touch()
            os.utime(seen, (time.time() - seen_minutes * 60,) * 2)
        options = ["60", "--jupyter", jupyter, "--seen", str(seen), "--metadata", str(metadata)]
        environment = {"PATH": commands.path}
        return subprocess.run(
            [sys.executable, str(PROGRAM), *options], env=environment, capture_output=True, text=True, timeout=60
        )

    return run


@pytest.mark.parametrize(
    ("kernels", "terminals", "stops"),
    [
        ([], [], True),
        ([("idle", 61)], [], True),
        ([("idle", 59)], [], False),
        ([("idle", 300), ("busy", 300)], [], False),  # a long training in a notebook is use
        ([("idle", 300)], [61], True),
        ([("idle", 300)], [59], False),
    ],
)
def test_the_instance_stops_once_neither_kernel_nor_terminal_was_used_for_the_limit(
    check: Check, commands: Commands, kernels: list[tuple[str, float]], terminals: list[float], stops: bool
) -> None:
    answers = {
        "/api/kernels": as_json([{"execution_state": state, "last_activity": ago(used)} for state, used in kernels]),
        "/api/terminals": as_json([{"name": "1", "last_activity": ago(used)} for used in terminals]),
    }
    with http_answers(answers) as jupyter:
        done = check(jupyter, seen_minutes=90)
    assert done.returncode == 0, done.stderr
    assert commands.calls() == ([STOPPED] if stops else [])


@pytest.mark.parametrize("broken", ["", "not JSON", '[{"name": "no state"}]'])
def test_a_jupyter_that_answers_nonsense_does_not_stop_the_clock(check: Check, commands: Commands, broken: str) -> None:
    with http_answers({"/api/kernels": broken, "/api/terminals": "[]"}) as jupyter:
        done = check(jupyter, seen_minutes=61)
    assert done.returncode == 0
    assert commands.calls() == [STOPPED]
    assert "Jupyter does not answer" in done.stderr


def test_a_jupyter_that_is_gone_does_not_stop_the_clock(check: Check, commands: Commands) -> None:
    assert check(NOWHERE, seen_minutes=61).returncode == 0
    assert commands.calls() == [STOPPED]


def test_a_jupyter_that_is_still_starting_has_the_whole_limit(check: Check, commands: Commands) -> None:
    check(NOWHERE, seen_minutes=59)
    assert commands.calls() == []


def test_the_clock_starts_with_the_first_check_after_a_start(check: Check, commands: Commands, tmp_path: Path) -> None:
    check(NOWHERE, seen_minutes=None)
    assert commands.calls() == []
    assert time.time() - (tmp_path / "seen").stat().st_mtime < 60


def test_use_is_remembered_when_jupyter_fails_later(check: Check, commands: Commands, tmp_path: Path) -> None:
    answers = {"/api/kernels": as_json([{"execution_state": "busy", "last_activity": ago(0)}]), "/api/terminals": "[]"}
    with http_answers(answers) as jupyter:
        check(jupyter, seen_minutes=90)
    assert time.time() - (tmp_path / "seen").stat().st_mtime < 60
    assert commands.calls() == []


def test_a_stop_that_aws_refuses_is_a_failure_that_the_next_check_repeats(check: Check, commands: Commands) -> None:
    commands.add("aws", status=254)
    assert check(NOWHERE, seen_minutes=61).returncode == 254


def start(tmp_path: Path, commands: Commands) -> subprocess.CompletedProcess[str]:
    """Run the lifecycle script in a root of its own."""
    values = {
        "IDLE_MINUTES": "45",
        "STAGE": '{"PipelineName": "p"}',
        "NOTEBOOK": "s3://b/n",
        "REQUIREMENTS": "s3://b/r",
    }
    text = script("notebook_start.sh", IDLE=script("notebook_idle.py"), **values)
    environment = {"PATH": commands.path, "ROOT": str(tmp_path / "root")}
    return subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True, timeout=60)


def test_each_start_installs_the_check_and_its_timer(tmp_path: Path, commands: Commands) -> None:
    for name in ("systemd-run", "aws", "chown"):
        commands.add(name)
    seen = tmp_path / "root" / "run" / "kennel-seen"
    seen.parent.mkdir(parents=True)
    seen.touch()
    done = start(tmp_path, commands)
    assert done.returncode == 0, done.stderr
    installed = tmp_path / "root/usr/local/lib/kennel/notebook_idle.py"
    assert installed.read_text() == PROGRAM.read_text()
    assert not seen.exists()  # yesterday's use is not today's
    call, *copies, _ = commands.calls()
    assert call.startswith("systemd-run --unit=kennel-idle --on-active=5min --on-unit-active=5min ")
    assert call.endswith(f"{installed} 45")
    home = tmp_path / "root/home/ec2-user/SageMaker/kennel"
    assert json.loads((home / "stage.json").read_text()) == {"PipelineName": "p"}
    assert copies == [
        f"aws s3 cp --no-progress s3://b/n {home}/operate.ipynb",
        f"aws s3 cp --no-progress s3://b/r {home}/requirements.txt",
    ]


def test_a_notebook_that_cannot_be_copied_does_not_keep_the_instance_from_starting(
    tmp_path: Path, commands: Commands
) -> None:
    commands.add("systemd-run")
    commands.add("aws", status=1)
    commands.add("chown", status=1)
    done = start(tmp_path, commands)
    assert done.returncode == 0, done.stderr
    assert "operate.ipynb was not copied from s3://b/n" in done.stdout


def test_a_notebook_without_its_timer_does_not_start(tmp_path: Path, commands: Commands) -> None:
    commands.add("systemd-run", status=1)
    assert start(tmp_path, commands).returncode != 0
