"""A training instance: its disk, its tags, its commands, its systemd, and a bucket in moto's S3 for the real AWS CLI.

Docker is a stand-in that acts the image's commands on the mounts it was given, or runs the training program itself.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]

from stacks.workbench.user_data import script
from tests.stacks.workbench.fakes import Commands, as_json, http_answers

ROOT = Path(__file__).parents[3]
IMAGE = "1.dkr.ecr.eu-west-1.amazonaws.com/training:abc"
PREFIX = "runs/kennel-prod/ec2"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}

# What both stand-ins have in common: the mounts, and the command after the image's name. BREAK fails a command, WAIT
# makes one last until it is stopped.
_DOCKER = r"""
import json, os, subprocess, sys, tempfile, time
from pathlib import Path
arguments, here = sys.argv[1:], Path(sys.argv[0]).parent
def wait(name):
    (here / f"waits-{name}").touch()
    while not (here / "stopped").exists():
        time.sleep(0.02)
if arguments[0] == "login":
    (here / "password").write_text(sys.stdin.read())
if arguments[0] == "stop":
    (here / "stopped").touch()
if arguments[0] != "run":
    if os.environ.get("WAIT") == arguments[0]: wait(arguments[0])
    sys.exit(os.environ.get("BREAK") == arguments[0])
place = arguments.index(os.environ["IMAGE"])
mounts = [arguments[at + 1].split(":")[:2] for at, word in enumerate(arguments[:place]) if word == "-v"]
variables = dict(arguments[at + 1].split("=", 1) for at, word in enumerate(arguments[:place]) if word == "--env")
command, *options = arguments[place + 1:]
ml = Path(tempfile.mkdtemp())
for outside, inside in mounts:
    (ml / inside.removeprefix("/opt/ml/")).symlink_to(outside)
"""

_ACTED = r"""
def write(path, text):
    (ml / path).parent.mkdir(parents=True, exist_ok=True)
    (ml / path).write_text(text)
def fail(file):
    if os.environ.get("BREAK") == command:
        write(f"output/{file}", f"{command} did not work")
        sys.exit(1)
print(f"{command} says hello", flush=True)
if os.environ.get("BREAK") == "disk":
    with open(ml / "processing/output/big", "wb") as big:
        big.write(bytes(10**8))
if command == "prepare":
    fail("message")
    data = (ml / "processing/input/dataset/dataset.json").read_text()
    for split in ("train", "valid", "test"):
        write(f"processing/output/data/{split}/index.json", split + data)
    write("processing/output/weights/weights.json", "{}")
    write("processing/output/report/prepare.json", json.dumps(options))
if command == "train":
    fail("failure")
    names = sorted(str(file.relative_to(ml)) for mount in ml.iterdir() for file in mount.rglob("*.json"))
    resumed = (ml / "checkpoints/last").exists()
    write("checkpoints/last", "")
    if os.environ.get("WAIT") == "train":
        wait("train")
        sys.exit(143)
    config = {file.stem: json.loads(file.read_text()) for file in (ml / "input/config").iterdir()}
    write("model/model.json", json.dumps({"saw": names, "resumed": resumed, "variables": variables, **config}))
if command == "evaluate":
    fail("message")
    assert (ml / "processing/input/test/index.json").read_text().startswith("test")
    assert (ml / "processing/input/model/model.tar.gz").exists()
    for name in ("evaluation.json", "report.html"):
        write(f"processing/output/evaluation/{name}", "{}")
"""

_REAL = f"""
program = [{sys.executable!r}, "-m", "training", command, *options]
environment = {{**os.environ, **variables, "OPT_ML": str(ml), "PYTHONPATH": {str(ROOT)!r}}}
sys.exit(subprocess.run(program, env=environment).returncode)
"""


@dataclass
class Machine:
    """`tags` are what the operator has set; `variables` go to the run beside its own; `room`: KiB a file may have."""

    folder: Path
    endpoint: str
    real: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    minutes: float = 5
    room: int | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.bucket = f"bucket-{uuid.uuid4().hex}"
        self.disk = self.folder / "ml"
        self.s3 = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **_keys())
        self.s3.create_bucket(Bucket=self.bucket)
        self.commands = Commands(self.folder / "bin")
        aws = shlex.quote(str(Path(sys.executable).with_name("aws")))
        self.commands.script("aws", f'#!/bin/bash\nexec {aws} "$@"\n')
        self.commands.python("docker", _DOCKER + (_REAL if self.real else _ACTED))
        for name in ("shutdown", "systemctl"):
            self.commands.add(name)

    def put(self, manifest: str) -> None:
        """Upload a data set of one file, and then its manifest."""
        for key in (f"{manifest.removesuffix('.manifest')}/dataset.json", manifest):
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=as_json({"name": manifest}))

    def boot(self, signalled: Mapping[str, signal.Signals] | None = None) -> int:
        """The first boot: cloud-init runs the user data, and systemd then the service that it has installed."""
        values = {"BUCKET": self.bucket, "PREFIX": PREFIX, "IMAGE": IMAGE, "REGION": "us-east-1"}
        limits = {"RUN_MINUTES": f"{self.minutes:g}", "MAX_MINUTES": "735"}
        user_data = script("trainer_boot.sh", TRAIN=script("trainer_run.sh"), **values, **limits)
        root = self.folder / "root"
        environment = {"PATH": self.commands.path, "ROOT": str(root)}
        done = subprocess.run(["bash", "-c", user_data], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return self.start(signalled)

    def start(self, signalled: Mapping[str, signal.Signals] | None = None) -> int:
        """A boot: systemd runs the service; `signalled`: the signal it gets once a command waits. Returns its code."""
        instance = {"instance-id": "i-42", "instance-type": "g4dn.xlarge"}
        answers = {"/latest/api/token": "token"} | {f"/latest/meta-data/{key}": text for key, text in instance.items()}
        answers |= {f"/latest/meta-data/tags/instance/{key}": text for key, text in self.tags.items()}
        (self.commands.folder / "stopped").unlink(missing_ok=True)
        with http_answers(answers) as imds:
            return _service(self, {"IMDS": imds, "OPT_ML": str(self.disk)}, dict(signalled or {}))

    def left(self) -> dict[str, str]:
        """What runs have uploaded: path below the run's folder -> content; and under "run" the run's id."""
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=f"{PREFIX}/").get("Contents", [])
        runs = {key["Key"].removeprefix(f"{PREFIX}/").split("/", 1)[0] for key in listed}
        assert len(runs) <= 1, runs
        found = {"run": runs.pop()} if runs else {}
        for key in listed:
            body = self.s3.get_object(Bucket=self.bucket, Key=key["Key"])["Body"].read()
            found[key["Key"].removeprefix(f"{PREFIX}/").split("/", 1)[1]] = body.decode(errors="replace")
        return found

    def runs(self) -> list[str]:
        """The image's commands, in the order in which docker was told to run them."""
        said = [shlex.split(call) for call in self.commands.calls() if call.startswith("docker run")]
        return [words[words.index(IMAGE) + 1] for words in said]


def _keys() -> dict[str, str]:
    return {name.lower(): value for name, value in CREDENTIALS.items() if name != "AWS_DEFAULT_REGION"}


def _service(machine: Machine, variables: Mapping[str, str], signalled: dict[str, signal.Signals]) -> int:
    """What systemd makes of the installed unit: ExecStart within RuntimeMaxSec, and ExecStopPost however it ended."""
    root = machine.folder / "root"
    unit = (root / "etc/systemd/system/kennel-train.service").read_text().splitlines()
    said = dict(line.split("=", 1) for line in unit if "=" in line)
    file = (root / said["EnvironmentFile"].lstrip("/")).read_text().splitlines()
    environment = {"PATH": machine.commands.path, **CREDENTIALS, "AWS_ENDPOINT_URL": machine.endpoint}
    environment |= dict(line.split("=", 1) for line in file)
    environment |= {"AWS_MAX_ATTEMPTS": "1", **variables, **machine.variables}
    program = str(root / said["ExecStart"].lstrip("/"))
    limit = f"ulimit -f {machine.room or 'unlimited'}; exec bash {shlex.quote(program)}"
    process = subprocess.Popen(["bash", "-c", limit], env=environment, start_new_session=True)
    try:
        for command, number in signalled.items():
            eventually((machine.commands.folder / f"waits-{command}").exists)
            process.send_signal(number)
        code = _wait(process, float(said["RuntimeMaxSec"].removesuffix("min")) * 60)
    finally:
        _kill_group(process)  # KillMode=mixed: SIGTERM was for the script alone, this is for what it leaves behind
    shutdown = said["ExecStopPost"].removeprefix("/usr/sbin/").split()
    subprocess.run([str(machine.commands.folder / shutdown[0]), *shutdown[1:]], check=True)
    return code


def _wait(process: "subprocess.Popen[Any]", limit: float) -> int:
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        process.terminate()
        return process.wait(60)


def _kill_group(process: "subprocess.Popen[Any]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def eventually(true: Callable[[], Any], seconds: float = 30) -> None:
    """Wait until `true` says so."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.02)
