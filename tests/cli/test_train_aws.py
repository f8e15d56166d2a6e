"""`kennel train` against an AWS on loopback whose jobs are real processes: started, followed, told."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from kennel.cli import app
from tests.cli.launch_world import MANIFEST, PIPELINE, TRAIN, LaunchWorld

ROOT = Path(__file__).resolve().parents[2]
_CODE = "from kennel.cli import app; app(prog_name='kennel')"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LaunchWorld]:
    with LaunchWorld(tmp_path).running() as world:
        for name, value in world.cloud.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it keeps the credentials of earlier tests
        monkeypatch.setattr("kennel.train.follow._POLL_S", 0.1)
        yield world


def kennel(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "80"}, prog_name="kennel")


def train(*arguments: object) -> Result:
    return kennel("train", "--stage", "T", *arguments)


def eventually(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def test_a_run_is_told_step_by_step_line_by_line_each_once(world: LaunchWorld) -> None:
    world.pipeline()
    done = train("--yes")
    assert done.exit_code == 0, done.output
    lines = [re.sub(r"\d+\.\d s", "0.0 s", line) for line in done.stdout.splitlines()]
    told = lines[next(number for number, line in enumerate(lines) if line.startswith("Started: ")) + 1 : -1]
    assert told == [
        "Train ...",
        "  model=resnet18 mode=head",
        "  epoch 1  train loss 0.5000  valid loss 0.2500  valid accuracy 0.1000  images per second 100",
        "  epoch 2  train loss 0.5000  valid loss 0.2500  valid accuracy 0.2000  images per second 100",
        "✓ Train 0.0 s: epoch 2  train loss 0.5000  valid loss 0.2500  valid accuracy 0.2000  images per second 100",
        "Evaluate ...",
        "  evaluated",
        "✓ Evaluate 0.0 s",
    ]
    assert lines[-1].startswith("Cost about $0.00")
    assert "kennel status --stage T" in lines[-1]
    assert "\x1b" not in done.stdout


def test_parameters_reach_the_run_and_the_newest_data_is_taken(world: LaunchWorld) -> None:
    world.pipeline()
    done = train("--yes", "--detach", "--epochs", 3, "--instances", 2, "--set", "Mode=head")
    assert done.exit_code == 0, done.output
    (execution,) = world.executions
    assert world.parameters_of(execution["PipelineExecutionArn"]) == {
        "DataManifest": MANIFEST,
        "InstanceType": "ml.m5.xlarge",
        "InstanceCount": "2",
        "Epochs": "3",
        "Mode": "head",
    }
    assert f"kennel train --follow {execution['PipelineExecutionArn']}" in done.stdout


def test_the_most_that_it_can_cost_is_said_first_and_without_a_terminal_it_is_not_started(world: LaunchWorld) -> None:
    world.pipeline()
    done = train("--instances", 3)
    assert "  Train: 3 x ml.m5.xlarge, at most 2 h: $1.38" in done.stdout
    assert "  Evaluate: 1 x ml.m5.xlarge, at most 60 min: $0.23" in done.stdout
    assert "At most $1.61, if every job runs into its time limit." in done.stdout
    assert "Prices: us-east-1" in done.stdout
    assert "there is no terminal to ask on: repeat the command with --yes." in done.stderr
    assert (done.exit_code, world.executions) == (1, [])


def test_an_instance_type_without_a_price_is_said_and_asked_about_all_the_same(world: LaunchWorld) -> None:
    world.pipeline()
    done = train("--instance-type", "ml.trn1.2xlarge")
    assert "  Train: 1 x ml.trn1.2xlarge, at most 2 h: price unknown" in done.stdout
    assert "The price of ml.trn1.2xlarge is unknown here" in done.stdout
    assert (done.exit_code, world.executions) == (1, [])


def test_the_end_of_an_earlier_run_allows_an_estimate_and_a_comparison(world: LaunchWorld, tmp_path: Path) -> None:
    world.pipeline()
    assert train("--yes").exit_code == 0
    assert re.search(r"Runs like it took about \d+ s and \$0\.\d+ \(1 in head mode\)", train().stdout)
    compared = kennel("compare", "--stage", "T", "--runs", tmp_path, "--json")
    (run,) = json.loads(compared.stdout)["runs"]
    assert (run["launcher"], run["instance_type"]) == ("SageMaker", "ml.m5.xlarge")
    assert (run["images"], run["epochs"]) == (1000, 2)
    assert run["worst"] == [["cat", 0.8], ["dog", 1.0]]
    assert run["billable_seconds"] > 1  # a whole second of Train, and Evaluate
    assert run["cost"] == pytest.approx(run["billable_seconds"] * 0.23 / 3600)
    table = kennel("compare", "--stage", "T", "--runs", tmp_path).stdout
    assert all(len(line) <= 80 for line in table.split("Prices:")[0].splitlines())
    assert "For 2,000 images (head mode)" in table


def test_a_failed_run_ends_with_the_step_the_reason_and_the_last_lines_of_its_log(world: LaunchWorld) -> None:
    world.pipeline(
        train="""
say("reading"); say("\\x1b[31mclass cat is empty")
(ml / "output").mkdir(exist_ok=True); (ml / "output" / "failure").write_text("The class cat is empty.")
sys.exit(1)"""
    )
    done = train("--yes")
    assert done.exit_code == 1
    assert "✗ Train" in done.stdout
    assert "The log of Train ends with:\n  reading\n   [31mclass cat is empty\n" in done.stdout
    assert "The run ended as Failed in step Train: AlgorithmError: The class cat is empty." in done.stderr
    assert "run `kennel train` again" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_for_programs_there_is_one_json_on_stdout(world: LaunchWorld) -> None:
    world.pipeline()
    done = train("--yes", "--json")
    told = json.loads(done.stdout)
    assert told["status"] == "Succeeded"
    assert told["execution"] == world.executions[0]["PipelineExecutionArn"]
    assert told["most"] == pytest.approx(0.69)
    assert set(told["seconds"]) == {"Train", "Evaluate"}
    assert "epoch 2" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--learning-rate", "0.1"], "Unknown pipeline parameters: LearningRate; known are DataManifest"),
        (["--set", "Mode=tail"], "The pipeline parameter Mode must be one of auto, head, whole, not 'tail'."),
        (["--set", "Epochs=few"], "The pipeline parameter Epochs must be of type Integer, not 'few'."),
        (["--set", "Epochs"], "--set takes Name=Value, such as Epochs=3, not 'Epochs'."),
        (["cats"], "There is no data set 'cats' in s3://"),
        (["--weights", "x.pth"], "On AWS the weights travel with the data"),
        (["--follow", "arn:x", "--spot"], "--spot does not go with --follow"),
        (["--resume", "x", "--epochs", "3"], "hyperparameters does not go with --resume"),
        (["--local", ".", "--spot"], "--spot is for runs on AWS"),
        (["--follow", "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/x"], "does not exist"),
    ],
)
def test_what_cannot_be_started_is_one_sentence(world: LaunchWorld, arguments: list[str], says: str) -> None:
    world.pipeline()
    done = train("--yes", *arguments)
    assert says in done.stdout + done.stderr
    assert (done.exit_code, world.executions) == (1, [])
    assert "Traceback" not in done.stderr


def test_a_stage_that_is_not_deployed_is_said(world: LaunchWorld) -> None:
    done = kennel("train", "--stage", "Gone", "--yes")
    assert "run `make deploy STAGE=Gone` first" in done.stderr


def test_a_pipeline_that_was_deleted_is_said(world: LaunchWorld) -> None:
    assert f"Pipeline '{PIPELINE}' does not exist" in train("--yes").stderr.replace(
        f"arn:aws:sagemaker:us-east-1:123456789012:pipeline/{PIPELINE}", PIPELINE
    )


_WAITING = TRAIN.replace("for epoch", "time.sleep(120)\nfor epoch")


def _terminal(*arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """The command on a terminal of 80 columns; returns the process and our end."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "LINES": "40", "TERM": "xterm"}
    command = [sys.executable, "-c", _CODE, "train", "--stage", "T", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    return process, ours


def _until(terminal: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        try:
            seen += os.read(terminal, 4096)
        except OSError:
            raise AssertionError(f"{text!r} was not printed: {seen.decode()}") from None
    return seen


def test_on_a_terminal_it_asks_and_ctrl_c_leaves_the_run_going(world: LaunchWorld) -> None:
    world.pipeline(train=_WAITING)
    process, terminal = _terminal()
    try:
        asked = _until(terminal, b"Start it?")
        assert b"At most $0.69" in asked
        assert world.executions == []
        os.write(terminal, b"y\n")
        _until(terminal, b"model=resnet18")
        assert "▸ Train".encode() in _until(terminal, "▸ Train".encode())
        process.send_signal(signal.SIGINT)
        said = _until(terminal, b"stop-pipeline-execution")
        assert process.wait(20) == 130
    finally:
        process.kill()
        os.close(terminal)
    assert b"the run goes on" in said
    assert b"kennel train --follow arn:" in said
    assert world.executions[0]["PipelineExecutionStatus"] == "Executing"


def test_a_no_starts_nothing(world: LaunchWorld) -> None:
    world.pipeline()
    process, terminal = _terminal()
    try:
        _until(terminal, b"Start it?")
        os.write(terminal, b"\n")
        _until(terminal, b"Nothing was started.")
        assert process.wait(20) == 1
    finally:
        process.kill()
        os.close(terminal)
    assert world.executions == []


def test_a_run_that_was_started_by_an_upload_can_be_followed(world: LaunchWorld) -> None:
    world.pipeline()
    parameters = [{"Name": "DataManifest", "Value": MANIFEST}]
    started = world.cloud.client("sagemaker").start_pipeline_execution(
        PipelineName=PIPELINE, PipelineParameters=parameters, ClientRequestToken="u" * 32
    )
    eventually(lambda: world.executions[0]["PipelineExecutionStatus"] == "Succeeded")
    done = train("--follow", started["PipelineExecutionArn"])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("\n  epoch 2") == 1
