"""The training run of the EC2 launcher, run by bash with the real AWS CLI, against the S3 of moto's server."""

import io
import json
import shlex
import tarfile
import time
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import pytest

from tests.stacks.workbench.trainer_machine import IMAGE, Machine

pytestmark = pytest.mark.long  # some seconds a run: the AWS CLI starts eight times, Docker's stand-in six

NEW, OLD = "datasets/dogs/bb.manifest", "datasets/dogs/aa.manifest"
DONE = {"output/model.tar.gz", "evaluation/evaluation.json", "evaluation/report.html", "report/prepare.json", "run.log"}


@pytest.fixture
def machine(tmp_path: Path, moto_server: str) -> Machine:
    machine = Machine(tmp_path, moto_server)
    for manifest in (OLD, NEW):
        machine.put(manifest)
    return machine


def trained(machine: Machine) -> dict[str, Any]:
    """What the acted training wrote into the uploaded model."""
    (key,) = [
        one["Key"]
        for one in machine.s3.list_objects_v2(Bucket=machine.bucket, Prefix="runs/")["Contents"]
        if one["Key"].endswith("model.tar.gz")
    ]
    body = machine.s3.get_object(Bucket=machine.bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        member = archive.extractfile("model.json")
        assert member
        found: dict[str, Any] = json.loads(member.read())
    return found


def test_a_run_takes_the_newest_data_of_many_and_leaves_model_metrics_reports_and_log(
    tmp_path: Path, moto_server: str
) -> None:
    machine = Machine(tmp_path, moto_server)
    machine.put("datasets/zebras/aa.manifest")
    for number in range(1000):  # the older manifest is on the listing's second page
        machine.s3.put_object(Bucket=machine.bucket, Key=f"datasets/filler/{number}")
    time.sleep(1.1)  # S3 counts seconds
    machine.put(NEW)
    assert machine.boot() == 0
    left = machine.left()
    assert set(left) == {"run", *DONE}
    assert left["run"].endswith("Z-i-42")
    assert f"Data: s3://{machine.bucket}/{NEW}" in left["run.log"]
    assert "train says hello" in left["run.log"]
    assert json.loads(left["report/prepare.json"]) == ["--duplicates", "fail", "--mode", "auto"]
    assert NEW in (machine.disk / "processing/input/dataset/dataset.json").read_text()


def test_the_images_own_commands_run_in_order_alone_and_without_a_network(machine: Machine) -> None:
    machine.boot()
    assert machine.runs() == ["prepare", "train", "evaluate"]
    calls = [call for call in machine.commands.calls() if call.startswith("docker")]
    assert all(" --network none " in call for call in calls if call.startswith("docker run"))
    assert calls.index("docker rm --force kennel") < next(n for n, one in enumerate(calls) if "docker run" in one)
    (password,) = [call for call in calls if call.startswith("docker login")]
    assert shlex.split(password)[2:] == ["--username", "AWS", "--password-stdin", IMAGE.split("/")[0]]


def test_training_sees_what_a_sagemaker_job_sees_and_no_test_split(machine: Machine) -> None:
    machine.tags = {"Hyperparameters": '{"epochs": "3", "mode": "whole"}', "Duplicates": "remove", "DataManifest": OLD}
    machine.boot()
    saw = trained(machine)
    assert {"input/data/train/index.json", "input/data/valid/index.json", "input/data/weights/weights.json"} <= set(
        saw["saw"]
    )
    assert not [name for name in saw["saw"] if "test" in name]
    assert saw["hyperparameters"] == {"epochs": "3", "mode": "whole"}
    assert saw["variables"] == {"TRAINING_IMAGE": IMAGE}
    assert saw["resourceconfig"]["hosts"] == [saw["resourceconfig"]["current_host"]] == ["algo-1"]
    assert saw["resourceconfig"]["current_instance_type"] == "g4dn.xlarge"
    assert json.loads(machine.left()["report/prepare.json"]) == ["--duplicates", "remove", "--mode", "whole"]
    assert f"Data: s3://{machine.bucket}/{OLD}" in machine.left()["run.log"]


def test_an_empty_bucket_ends_the_run_with_what_to_do(tmp_path: Path, moto_server: str) -> None:
    machine = Machine(tmp_path, moto_server)
    assert machine.boot() == 1
    assert "upload one with `kennel upload`" in machine.left()["failure"]
    assert machine.runs() == []


@pytest.mark.parametrize("command", ["prepare", "train", "evaluate"])
def test_a_command_that_fails_leaves_its_reason_and_no_model_and_the_next_boot_begins_anew(
    machine: Machine, command: str
) -> None:
    machine.variables = {"BREAK": command}
    assert machine.boot() == 1
    assert set(machine.left()) == {"run", "run.log", "failure"}
    assert machine.left()["failure"] == f"{command} did not work"
    assert not (machine.disk / "run-id").exists()
    machine.variables = {}
    before = len(machine.runs())
    assert machine.start() == 0
    assert machine.runs()[before:] == ["prepare", "train", "evaluate"]


@pytest.mark.parametrize("command", ["pull", "train"])
def test_what_was_stopped_goes_on_at_the_next_boot_under_its_name(machine: Machine, command: str) -> None:
    machine.variables = {"WAIT": command}
    assert machine.boot({command: SIGTERM}) == 143
    stopped = machine.left()
    assert set(stopped) == {"run", "run.log"}
    assert "docker stop -t 120 kennel" in machine.commands.calls()
    machine.variables = {}
    assert machine.start() == 0
    assert machine.left()["run"] == stopped["run"]
    assert machine.runs().count("prepare") == 1
    assert trained(machine)["resumed"] is (command == "train")


def test_what_was_cut_off_goes_on_at_the_next_boot(machine: Machine) -> None:
    machine.variables = {"WAIT": "train"}
    assert machine.boot({"train": SIGKILL}) == -SIGKILL
    machine.variables = {}
    assert machine.start() == 0
    assert machine.runs() == ["prepare", "train", "train", "evaluate"]
    assert trained(machine)["resumed"] is True
    assert set(machine.left()) == {"run", *DONE}


@pytest.mark.parametrize(("manifest", "kept"), [(NEW, True), (OLD, False)])
def test_the_next_run_on_the_same_data_finds_what_the_last_one_kept(
    machine: Machine, manifest: str, kept: bool
) -> None:
    machine.boot()
    assert not (machine.disk / "run-id").exists()
    for key in machine.s3.list_objects_v2(Bucket=machine.bucket, Prefix="runs/")["Contents"]:
        machine.s3.delete_object(Bucket=machine.bucket, Key=key["Key"])
    machine.tags = {"DataManifest": manifest}
    machine.start()
    assert machine.runs() == ["prepare", "train", "evaluate"] * 2
    assert trained(machine)["resumed"] is kept
    assert machine.left()["run.log"].count("train says hello") == 1


def test_the_password_of_the_registry_is_never_an_argument_or_a_log_line(machine: Machine) -> None:
    machine.boot()
    password = machine.commands.folder / "password"
    assert password.read_text().strip()
    assert not [call for call in machine.commands.calls() if password.read_text().strip() in call]
    assert password.read_text().strip() not in machine.left()["run.log"]
