"""The training run of the EC2 launcher, run by bash: an S3 made of folders, a Docker that acts the image's commands."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.stacks.fakes import Commands, http_answers

pytestmark = pytest.mark.long  # a second a run: bash, Docker's stand-in and its Python each time

RUN = Path(__file__).parents[2] / "stacks" / "user_data" / "trainer_run.sh"
NEW, OLD = "datasets/dogs/bb.manifest", "datasets/dogs/aa.manifest"

# s3 cp between folders below S3 and anywhere; list-objects-v2 as its --query would answer; get-login-password.
AWS = r"""
import os, shutil
from pathlib import Path
def local(name):
    return Path(os.environ["S3"]) / name.removeprefix("s3://bucket/") if name.startswith("s3://") else Path(name)
words = [word for word in sys.argv[1:] if not word.startswith("--")]
if words[:2] == ["s3", "cp"]:
    source, target = local(words[2]), local(words[3])
    if not source.exists():
        sys.exit(f"fatal error: {words[2]} does not exist")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)
elif words[:2] == ["s3api", "list-objects-v2"]:
    print(os.environ["NEWEST"])
elif words[:2] == ["ecr", "get-login-password"]:
    print("secret")
else:
    sys.exit(f"unexpected: {words}")
"""

# The three commands of the training image, seen through the mounts that docker was given.
DOCKER = r"""
import json, os, time
from pathlib import Path
arguments = sys.argv[1:]
stopped = Path(os.environ["S3"]).parent / "stopped"
if arguments[0] == "login":
    sys.exit(0 if sys.stdin.read() == "secret\n" else "wrong password")
if arguments[0] == "stop":
    stopped.touch()
if arguments[0] != "run":
    sys.exit(0)
mounts = {}
for place, word in enumerate(arguments):
    if word == "-v":
        outside, inside = arguments[place + 1].split(":")[:2]
        mounts[inside] = Path(outside)
def at(path):
    inside = max((each for each in mounts if path.startswith(each)), key=len)
    return mounts[inside] / path[len(inside) + 1:]
def write(path, text):
    at(path).parent.mkdir(parents=True, exist_ok=True)
    at(path).write_text(text)
command = arguments[-1]
if command == "prepare":
    data = (at("/opt/ml/processing/input/dataset") / "dataset.json").read_text()
    for split in ("train", "valid", "test"):
        write(f"/opt/ml/processing/output/data/{split}/index.json", split + data)
    write("/opt/ml/processing/output/weights/weights.json", "{}")
    write("/opt/ml/processing/output/report/prepare.json", "{}")
if command == "train":
    names = sorted(str(file.relative_to(root)) for root in mounts.values() for file in root.rglob("*.json"))
    resumed = (at("/opt/ml/checkpoints") / "last").exists()
    write("/opt/ml/checkpoints/last", "")
    write("/opt/ml/model/model.json", json.dumps({"saw": names, "resumed": resumed,
        "hyperparameters": json.loads(at("/opt/ml/input/config/hyperparameters.json").read_text()),
        "hosts": json.loads(at("/opt/ml/input/config/resourceconfig.json").read_text())["hosts"]}))
    print("epoch=1 train_loss=0.5")
    if os.environ.get("TRAIN") == "fails":
        write("/opt/ml/output/failure", "the learning rate is too high")
        sys.exit(1)
    while os.environ.get("TRAIN") == "waits":
        if stopped.exists():
            sys.exit(143)
        time.sleep(0.05)
if command == "evaluate":
    assert (at("/opt/ml/processing/input/test") / "index.json").read_text().startswith("test")
    assert at("/opt/ml/processing/input/model").joinpath("model.tar.gz").exists()
    write("/opt/ml/processing/output/evaluation/evaluation.json", '{"metrics": {}}')
"""


@dataclass
class Machine:
    """An instance with its tags, its disk and its bucket."""

    folder: Path
    commands: Commands
    tags: dict[str, str] = field(default_factory=dict)
    newest: str = NEW

    @property
    def bucket(self) -> Path:
        return self.folder / "s3"

    @property
    def disk(self) -> Path:
        return self.folder / "ml"

    def start(self, train: str = "") -> "subprocess.Popen[str]":
        answers = {"/latest/api/token": "token", "/latest/meta-data/instance-id": "i-42"}
        answers |= {f"/latest/meta-data/tags/instance/{key}": value for key, value in self.tags.items()}
        with http_answers(answers) as imds:
            environment = {
                "PATH": self.commands.path,
                "S3": str(self.bucket),
                "NEWEST": self.newest,
                "TRAIN": train,
                "OPT_ML": str(self.disk),
                "IMDS": imds,
                "BUCKET": "bucket",
                "PREFIX": "runs/kennel-prod/ec2",
                "IMAGE": "1.dkr.ecr.eu-west-1.amazonaws.com/training:abc",
            }
            process = subprocess.Popen(["bash", str(RUN)], env=environment, stderr=subprocess.PIPE, text=True)
            try:
                if train == "waits":
                    self._wait_for_checkpoint()
                    process.send_signal(signal.SIGTERM)
                process.communicate(timeout=60)
            finally:
                process.kill()
        return process

    def run(self) -> Path:
        """The folder of the one run in the bucket."""
        (folder,) = (self.bucket / "runs/kennel-prod/ec2").iterdir()
        return folder

    def docker_runs(self) -> list[str]:
        return [call for call in self.commands.calls() if call.startswith("docker run")]

    def _wait_for_checkpoint(self) -> None:
        limit = time.monotonic() + 30
        while not (self.disk / "checkpoints/last").exists():
            assert time.monotonic() < limit, "training never began"
            time.sleep(0.05)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    commands = Commands(tmp_path / "bin")
    commands.python("aws", AWS)
    commands.python("docker", DOCKER)
    machine = Machine(tmp_path, commands)
    for manifest in (NEW, OLD):
        folder = machine.bucket / manifest.removesuffix(".manifest")
        folder.mkdir(parents=True)
        (folder / "dataset.json").write_text(json.dumps({"name": manifest}))
    yield machine


def trained(machine: Machine) -> dict[str, object]:
    """What the fake training wrote into the uploaded model."""
    archive = machine.run() / "output/model.tar.gz"
    text = subprocess.run(["tar", "-xzOf", str(archive), "model.json"], capture_output=True, check=True).stdout
    found: dict[str, object] = json.loads(text)
    return found


def test_a_run_uploads_model_metrics_report_and_log(machine: Machine) -> None:
    assert machine.start().returncode == 0, (machine.disk / "run.log").read_text()
    uploaded = {str(file.relative_to(machine.run())) for file in machine.run().rglob("*") if file.is_file()}
    assert uploaded == {"output/model.tar.gz", "evaluation/evaluation.json", "report/prepare.json", "run.log"}
    assert machine.run().name.endswith("Z-i-42")
    assert "epoch=1 train_loss=0.5" in (machine.run() / "run.log").read_text()


def test_the_images_own_commands_run_in_order_and_without_a_network(machine: Machine) -> None:
    machine.start()
    assert [call.rsplit(" ", 1)[-1] for call in machine.docker_runs()] == ["prepare", "train", "evaluate"]
    assert all(" --network none " in call for call in machine.docker_runs())


def test_training_sees_no_test_split(machine: Machine) -> None:
    machine.start()
    saw = trained(machine)["saw"]
    assert isinstance(saw, list)
    assert {"data/train/index.json", "data/valid/index.json", "data/weights/weights.json"} <= set(saw)
    assert not [name for name in saw if "test" in name]


@pytest.mark.parametrize(("tags", "manifest"), [({}, NEW), ({"DataManifest": OLD}, OLD)])
def test_the_tag_names_the_data_and_without_it_the_newest_is_taken(
    machine: Machine, tags: dict[str, str], manifest: str
) -> None:
    machine.tags = tags
    machine.start()
    assert f"Data: s3://bucket/{manifest}" in (machine.run() / "run.log").read_text()
    assert manifest in (machine.disk / "processing/input/dataset/dataset.json").read_text()


@pytest.mark.parametrize(("tags", "expected"), [({}, {}), ({"Hyperparameters": '{"epochs": "3"}'}, {"epochs": "3"})])
def test_hyperparameters_come_from_the_tag_as_sagemaker_passes_them(
    machine: Machine, tags: dict[str, str], expected: dict[str, str]
) -> None:
    machine.tags = tags
    machine.start()
    assert trained(machine)["hyperparameters"] == expected
    assert trained(machine)["hosts"] == ["algo-1"]


@pytest.mark.parametrize("newest", ["None", ""])
def test_an_empty_bucket_ends_the_run_with_what_to_do(machine: Machine, newest: str) -> None:
    machine.newest = newest
    assert machine.start().returncode == 1
    assert "upload one with `kennel upload`" in (machine.run() / "run.log").read_text()
    assert machine.docker_runs() == []


def test_a_failed_training_uploads_its_reason_and_no_model(machine: Machine) -> None:
    assert machine.start(train="fails").returncode == 1
    uploaded = {str(file.relative_to(machine.run())) for file in machine.run().rglob("*") if file.is_file()}
    assert uploaded == {"run.log", "failure"}
    assert (machine.run() / "failure").read_text() == "the learning rate is too high"


def test_after_a_failure_the_next_boot_begins_anew(machine: Machine) -> None:
    machine.start(train="fails")
    assert machine.start().returncode == 0
    commands = [call.rsplit(" ", 1)[-1] for call in machine.docker_runs()]
    assert commands == ["prepare", "train", "prepare", "train", "evaluate"]


def test_sigterm_stops_the_container_and_the_next_boot_goes_on_from_its_checkpoint(machine: Machine) -> None:
    assert machine.start(train="waits").returncode == 143
    assert "docker stop -t 120 kennel" in machine.commands.calls()
    (machine.folder / "stopped").unlink()
    assert machine.start().returncode == 0
    assert [call.rsplit(" ", 1)[-1] for call in machine.docker_runs()] == ["prepare", "train", "train", "evaluate"]
    assert trained(machine)["resumed"] is True


def test_a_finished_run_is_not_gone_on_with(machine: Machine) -> None:
    machine.start()
    machine.start()
    assert not (machine.disk / "run-id").exists()
    assert [call.rsplit(" ", 1)[-1] for call in machine.docker_runs()].count("prepare") == 2


def test_the_password_of_the_registry_is_never_an_argument_or_a_log_line(machine: Machine) -> None:
    machine.start()
    assert not [call for call in machine.commands.calls() if "secret" in call]
    assert "secret" not in (machine.run() / "run.log").read_text()


def test_a_container_that_a_power_cut_left_behind_is_removed_first(machine: Machine) -> None:
    machine.start()
    docker = [call for call in machine.commands.calls() if call.startswith(("docker rm", "docker run"))]
    assert docker[0] == "docker rm --force kennel"


def test_without_a_registry_the_run_ends_and_still_uploads_its_log(machine: Machine) -> None:
    machine.commands.add("docker", status=1)
    assert machine.start().returncode == 1
    assert (machine.bucket / "runs/kennel-prod/ec2/i-42/run.log").exists()
