"""The rehearsal from end to end, as the command that a newcomer types."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.first_account import Account, release_a_failing_model
from kennel.console import Display
from kennel.rehearsal.options import SUITED_HERE, Options, overrides
from kennel.rehearsal.rehearse import embedded, synthesize
from kennel.rehearsal.report import RehearsalReport
from kennel.rehearsal.samples import write_digits
from kennel.rehearsal.session import Session
from kennel.upload.folder import scan_folder
from tests.rehearsal.base_image import base_image

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.torch

Rehearsed = tuple[subprocess.CompletedProcess[str], dict[str, Any], Path]


_KENNEL = "from kennel.cli import app; app(prog_name='kennel')"
# Beside other tests on one core: threads of two would wait for each other, spinning, while a test takes a core.
_ON_ONE_CORE = "import os; os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])\n"


def _command(*arguments: str) -> list[str]:
    beside = "PYTEST_XDIST_WORKER" in os.environ
    return [sys.executable, "-c", _ON_ONE_CORE * beside + _KENNEL, "rehearse", *arguments]


def _environment() -> dict[str, str]:
    """No credentials, no region, nothing of the caller's AWS settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTEST_"))}


def _rehearse(out: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    command = _command("--out", str(out), *arguments)
    done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=1800)
    return done, json.loads((out / "rehearsal.json").read_text())


def _alive() -> dict[int, int]:
    """Process id -> its parent's, zombies left out."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}


def _descendants(root: int) -> set[int]:
    parents, found = _alive(), {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    out = tmp_path_factory.mktemp("out")
    done, found = _rehearse(out, "--epochs", "1", "--threshold", "0.05")
    return done, found, out


def test_the_command_succeeds_and_prints_where_the_report_is(rehearsed: Rehearsed) -> None:
    done, _, out = rehearsed
    assert done.returncode == 0, done.stderr
    assert f"Report: {out / 'report.html'}" in done.stdout
    assert (out / "report.html").stat().st_size > 10_000
    assert "Traceback" not in done.stdout + done.stderr


def test_every_step_ran_in_the_order_of_the_path(rehearsed: Rehearsed) -> None:
    names = [step["name"] for step in rehearsed[1]["steps"]]
    path = ["Synthesize the app", "Deploy Dev", "Upload the data", "Run the pipeline", "Prepare", "Train", "Evaluate"]
    path += ["Gate", "Register", "Release the model", "Invoke the Lambda"]
    assert [name for name in names if name in path] == path
    assert all(step["seconds"] >= 0 and step["status"] == "done" for step in rehearsed[1]["steps"])


def test_the_lambda_answers_every_held_out_picture_better_than_guessing(rehearsed: Rehearsed) -> None:
    predictions = rehearsed[1]["predictions"]
    assert len(predictions) == 12
    assert all(0 < one["probability"] <= 1 and not one["error"] for one in predictions)
    assert rehearsed[1]["test_accuracy"] > 0.2  # ten classes


def test_the_accuracy_is_said_with_its_interval_and_the_models_own_report_is_kept(rehearsed: Rehearsed) -> None:
    done, found, out = rehearsed
    low, high = found["test_interval"]
    assert low < found["test_accuracy"] < high
    assert low == pytest.approx(found["evaluation"]["metrics"]["accuracy_lower"]["value"])
    assert f"(95 % interval {low:.1%} to {high:.1%})" in done.stdout
    assert (out / "model.html").stat().st_size > 10_000
    assert 'href="model.html"' in (out / "report.html").read_text()


def test_the_release_ends_with_the_record_that_it_is_live(rehearsed: Rehearsed) -> None:
    release = next(step for step in rehearsed[1]["steps"] if step["name"] == "Release the model")
    assert release["detail"] == "approved by the stage, recorded as live"


def test_no_call_was_outside_its_role(rehearsed: Rehearsed) -> None:
    assert rehearsed[1]["denied"] == []


def _unneeded(stage: str) -> set[tuple[str, str]]:
    """Role and action of each permission that the page on security says no call in `stage` needs."""
    page = (ROOT / "docs" / "security.md").read_text().split("## What no call of a rehearsal needs")[1]
    rows = [line.strip("| ").split(" | ") for line in page.split("\n## ")[0].splitlines() if line.startswith("| `")]
    own = [row for row in rows if row[1] in ("both", stage)]
    return {(row[0].strip("`"), action) for row in own for action in re.findall(r"`([^`]+)`", row[2])}


def test_each_permission_that_no_call_needed_has_its_reason_on_the_page(rehearsed: Rehearsed) -> None:
    assert {(one["role"], one["action"]) for one in rehearsed[1]["unused"]} == _unneeded("Dev")


@pytest.mark.long
def test_so_has_each_that_no_call_of_prod_needed_with_a_release_that_an_alarm_took_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(
        hyperparameters={**SUITED_HERE, "epochs": "1"}, stage="Prod", threshold=0.01, out=tmp_path / "out"
    )
    data = write_digits(tmp_path / "digits", seed=0)
    report = RehearsalReport(stage="Prod", started=datetime.now(UTC), overrides=overrides(options, scan_folder(data)))
    with Display() as display, embedded(options, tmp_path, display) as cloud:
        session = Session(options, tmp_path, report, display, cloud)
        session.deploy(synthesize(tmp_path / "cdk.out"))
        session.train(data)
        session.release()
        session.classify()
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
        found = release_a_failing_model(Account("Prod", cloud.client), lambda _seconds: time.sleep(2))
        assert {answer.verdict for answer in found.values()} <= {"good", "known"}, found
        assert "-Rollback" in found["An alarm takes the failing model back"].text
        assert cloud.denied == []
        assert {(one.role, one.action) for one in cloud.unused} == _unneeded("Prod")


def test_what_the_embedded_aws_does_not_hold_is_printed_by_type(rehearsed: Rehearsed) -> None:
    short = {row["type"] for row in rehearsed[1]["coverage"] if row["status"] != "enacted"}
    assert "Custom::CDKContainerImageBuild" in short
    assert all(kind in rehearsed[0].stdout for kind in short)
    assert all(row["note"] for row in rehearsed[1]["coverage"] if row["status"] != "enacted")


@pytest.mark.long
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_rehearsal_leaves_no_process_behind(tmp_path: Path, kill: signal.Signals) -> None:
    started = subprocess.Popen(
        _command("--out", str(tmp_path)),
        cwd=ROOT,
        env=_environment() | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout
    for line in started.stdout:
        if "Train ..." in line:
            break
    while len(children := _descendants(started.pid)) < 2:  # until the supervisor and the training program run
        assert started.poll() is None, started.communicate()
        time.sleep(0.1)
    started.send_signal(kill)
    started.communicate(timeout=120)
    deadline = time.monotonic() + 120
    while (left := children & set(_alive())) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == set()


@pytest.mark.long
def test_two_instances_learn_one_model_and_a_spot_interruption_costs_no_epoch_twice(tmp_path: Path) -> None:
    done, found = _rehearse(tmp_path, "--spot", "--instances", "2", "--epochs", "3", "--threshold", "0.05")
    assert done.returncode == 0, done.stderr
    assert "The spot instance was taken away" in done.stdout
    assert [one["epoch"] for one in found["epochs"]] == [1, 2, 3]
    assert found["overrides"]["InstanceCount"] == "2"
    assert found["test_accuracy"] > 0.2
    assert len(found["predictions"]) == 12


@pytest.mark.long
def test_with_weights_all_trials_share_the_features_of_one_job_even_on_spot_and_two_instances(tmp_path: Path) -> None:
    import torch
    from torchvision.models import resnet18  # type: ignore[import-untyped]

    torch.manual_seed(0)
    weights = tmp_path / "random.pth"
    torch.save(resnet18().state_dict(), weights)
    out = tmp_path / "out"
    more = ("--tune", "3", "--spot", "--instances", "2", "--epochs", "2", "--threshold", "0")
    done, found = _rehearse(out, "--weights", str(weights), *more)
    assert done.returncode == 0, done.stderr
    assert found["prepare"]["mode"] == "head"
    assert "TrainSpot" in [step["name"] for step in found["steps"]]
    assert [one["trial"] for one in found["trials"]] == ["1/3", "2/3", "3/3"]
    assert [one["epoch"] for one in found["epochs"]] == [1, 2]  # the winner's
    assert "The spot instance was taken away" in done.stdout
    resumed = [line for line in done.stdout.splitlines() if "features split=train" in line]
    assert resumed and " reused=0 " not in resumed[-1]
    assert found["denied"] == []


@pytest.mark.long
def test_prod_registers_the_best_trial_and_releases_it_after_an_approval_by_hand(tmp_path: Path) -> None:
    done, found = _rehearse(tmp_path, "--stage", "Prod", "--tune", "2", "--epochs", "1", "--threshold", "0.01")
    assert done.returncode == 0, done.stderr
    assert len({one["job"] for one in found["epochs"]}) == 2
    assert "EvaluateTuned" in [step["name"] for step in found["steps"]]
    release = next(step for step in found["steps"] if step["name"] == "Release the model")
    assert release["detail"] == "approved by the rehearsal, recorded as live"
    assert found["denied"] == []


@pytest.mark.long
def test_jobs_and_server_run_inside_the_real_images_over_a_spot_interruption(tmp_path: Path) -> None:
    base = base_image(tmp_path / "base")
    more = ("--spot", "--epochs", "2", "--threshold", "0.05")
    done, found = _rehearse(tmp_path / "out", "--images", "--base-image", base, *more)
    assert done.returncode == 0, done.stderr
    assert "Containers: images" in done.stdout
    assert "The spot instance was taken away" in done.stdout
    assert [one["epoch"] for one in found["epochs"]] == [1, 2]
    assert len(found["predictions"]) == 12


@pytest.mark.long
def test_of_two_rehearsals_at_once_one_is_released_and_one_rejected_with_the_reason(tmp_path: Path) -> None:
    def one(name: str, threshold: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
        return _rehearse(tmp_path / name, "--epochs", "1", "--threshold", threshold, "--seed", name)

    with ThreadPoolExecutor(2) as pool:
        (good, released), (bad, rejected) = pool.map(one, ("1", "2"), ("0", "1.0"))
    assert good.returncode == 0, good.stderr
    assert bad.returncode == 1
    assert bad.stderr.startswith("kennel: The model was not registered: on the test split")
    assert "AccuracyThreshold 1.0 or" in bad.stderr
    assert "Traceback" not in bad.stderr
    assert rejected["failure"].startswith("The model was not registered")
    assert rejected["test_accuracy"] < 1  # the report shows all the same what was measured
    assert all((tmp_path / "2" / page).exists() for page in ("report.html", "model.html"))
    assert (len(released["predictions"]), rejected["predictions"]) == (12, [])
    assert (released["overrides"]["Seed"], rejected["overrides"]["Seed"]) == ("1", "2")
