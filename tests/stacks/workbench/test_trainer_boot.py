"""The first boot of a training instance: whatever happens, it will power off."""

import shutil
import subprocess
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from stacks.workbench.user_data import script
from tests.stacks.synthesized import Synthesized, text
from tests.stacks.workbench.fakes import Commands
from tests.stacks.workbench.trainer_machine import Machine

VALUES = {
    "BUCKET": "bucket",
    "PREFIX": "runs/kennel-prod/ec2",
    "IMAGE": "registry/training:abc",
    "REGION": "eu-west-1",
    "RUN_MINUTES": "720",
    "MAX_MINUTES": "735",
}


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    commands = Commands(tmp_path / "bin")
    for name in ("shutdown", "systemctl"):
        commands.add(name)
    return commands


def boot(commands: Commands, root: Path) -> subprocess.CompletedProcess[str]:
    user_data = script("trainer_boot.sh", TRAIN=script("trainer_run.sh"), **VALUES)
    environment = {"PATH": commands.path, "ROOT": str(root)}
    return subprocess.run(["bash", "-c", user_data], env=environment, capture_output=True, text=True, timeout=60)


def test_the_hard_limit_is_set_before_anything_else_is_done(commands: Commands, tmp_path: Path) -> None:
    assert boot(commands, tmp_path / "root").returncode == 0
    assert commands.calls()[0] == "shutdown -h +735"


def test_a_boot_installs_the_run_as_a_service_of_every_boot_and_starts_it(commands: Commands, tmp_path: Path) -> None:
    root = tmp_path / "root"
    boot(commands, root)
    program = root / "usr/local/sbin/kennel-train"
    assert program.read_text() == script("trainer_run.sh")
    assert program.stat().st_mode & 0o111
    assert (root / "etc/kennel-train.env").read_text().splitlines() == [
        "BUCKET=bucket",
        "PREFIX=runs/kennel-prod/ec2",
        "IMAGE=registry/training:abc",
        "AWS_DEFAULT_REGION=eu-west-1",
    ]
    assert commands.calls()[1:] == [
        "systemctl daemon-reload",
        "systemctl enable kennel-train.service",
        "systemctl start --no-block kennel-train.service",
    ]


def test_the_service_powers_off_however_it_ends_and_has_a_limit_of_its_own(commands: Commands, tmp_path: Path) -> None:
    boot(commands, tmp_path / "root")
    unit = (tmp_path / "root/etc/systemd/system/kennel-train.service").read_text().splitlines()
    assert "ExecStopPost=/usr/sbin/shutdown -h now" in unit  # runs after success, failure, kill and a failed start
    assert "RuntimeMaxSec=720min" in unit
    assert "ExecStartPre=-/usr/sbin/shutdown -h +735" in unit  # later boots, which skip the user data
    assert "KillMode=mixed" in unit  # SIGTERM to the script alone, so that it can stop its container and upload
    assert not [line for line in unit if line.startswith("Restart=")]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
def test_systemd_finds_no_fault_in_the_service(commands: Commands, tmp_path: Path) -> None:
    boot(commands, tmp_path / "root")
    unit = tmp_path / "root/etc/systemd/system/kennel-train.service"
    # Its program lies below the test's root; systemd wants to see it.
    unit.write_text(unit.read_text().replace("/usr/local/sbin", str(tmp_path / "root/usr/local/sbin")))
    checked = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert "kennel-train.service" not in checked.stderr


NOBODY = "http://127.0.0.1:9"
ENDS: dict[str, dict[str, Any]] = {
    "done": {},
    "no network": {"variables": {"AWS_ENDPOINT_URL": NOBODY, "IMDS": NOBODY}},
    "no registry": {"variables": {"BREAK": "login"}},
    "no image": {"variables": {"BREAK": "pull"}},
    "prepare fails": {"variables": {"BREAK": "prepare"}},
    "train fails": {"variables": {"BREAK": "train"}},
    "evaluate fails": {"variables": {"BREAK": "evaluate"}},
    "no room for what is made": {"variables": {"BREAK": "disk"}, "room": 1024},
    "no room for anything": {"variables": {"OPT_ML": "/proc/kennel"}},
    "time limit": {"variables": {"WAIT": "train"}, "minutes": 0.08},
    "killed": {"variables": {"WAIT": "train"}},
}
UNHEARD = {"no network", "no room for anything", "killed"}  # from where no log can come


@pytest.mark.long
@pytest.mark.parametrize("end", ENDS)
def test_however_a_run_ends_its_log_is_kept_where_one_can_be_and_the_machine_powers_off(
    tmp_path: Path, moto_server: str, end: str
) -> None:
    machine = Machine(tmp_path, moto_server, **ENDS[end])
    machine.put("datasets/dogs/aa.manifest")
    code = machine.boot({"train": SIGKILL} if end == "killed" else None)
    assert (code == 0) is (end == "done")
    assert machine.commands.calls()[0] == "shutdown -h +735"
    assert machine.commands.calls()[-1] == "shutdown -h now"
    assert ("run.log" in machine.left()) is (end not in UNHEARD)
    assert ("output/model.tar.gz" in machine.left()) is (end == "done")


@pytest.mark.parametrize("broken", ["systemctl", "disk"])
def test_what_cannot_be_installed_powers_off_at_once(commands: Commands, tmp_path: Path, broken: str) -> None:
    root = tmp_path / "root"
    if broken == "systemctl":
        commands.add("systemctl", status=1)
    else:
        root.write_text("a file where a folder must be")
    assert boot(commands, root).returncode != 0
    assert commands.calls()[-1] == "shutdown -h now"


def test_the_synthesized_scripts_are_good_bash(synth: Synthesized) -> None:
    template = synth.only("Prod", "Workbench", "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    hooks = synth.only("Prod", "Workbench", "AWS::SageMaker::NotebookInstanceLifecycleConfig")["OnStart"]
    for encoded in (template["UserData"], hooks[0]["Content"]):
        # Angle brackets stand for what only CloudFormation knows; to bash they would be redirections.
        source = text(encoded["Fn::Base64"]).replace("<Prod", "Prod").replace("<AWS", "AWS")
        checked = subprocess.run(["bash", "-n"], input=source, capture_output=True, text=True)
        assert checked.stderr == ""


def test_the_user_data_fits_into_what_ec2_takes(synth: Synthesized) -> None:
    template = synth.only("Prod", "Workbench", "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    assert len(text(template["UserData"]["Fn::Base64"])) < 14_000  # of 16 KB; the references grow when filled in
