"""The command as people and programs run it: a process, its two streams and its exit code."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kennel.cli import COMMANDS, app
from kennel.rehearsal.options import SUITED_HERE, Options
from tests.cli.trees import tree
from training.hyperparameters import Hyperparameters, describe, option_name

ROOT = Path(__file__).resolve().parents[2]


def kennel(*arguments: object, **environment: str | None) -> Result:
    """Run the command in this process: one of its own costs half a second each time. None takes a variable away."""
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "100", **environment}, prog_name="kennel")


def test_as_a_process_the_command_writes_no_colours_into_a_pipe(stage: str, tmp_path: Path) -> None:
    folder = tree(tmp_path / "pets", "a/1.png", "b/1.png")
    code = "from kennel.cli import app; app(prog_name='kennel')"
    command = [sys.executable, "-c", code, "upload", str(folder), "--stage", stage]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 images of 2 classes" in done.stdout
    assert "\x1b" not in done.stdout


def test_an_upload_says_what_it_sent_and_where(stage: str, tmp_path: Path) -> None:
    done = kennel("upload", tree(tmp_path / "pets", "a/1.png", "b/1.png"), "--stage", stage)
    assert done.exit_code == 0, done.stderr
    assert "2 images of 2 classes" in done.stdout
    assert "/datasets/pets/" in done.stdout
    assert f"kennel status --stage {stage}" in done.stdout


def test_an_upload_for_programs_is_json_and_nothing_else(stage: str, tmp_path: Path) -> None:
    done = kennel("upload", tree(tmp_path / "pets", "a/1.png", "b/1.png"), "--stage", stage, "--json")
    sent = json.loads(done.stdout)
    assert (sent["images"], sent["classes"], sent["new"]) == (2, ["a", "b"], True)
    assert done.stderr == ""


def test_the_status_of_a_stage_without_models_says_what_to_do(stage: str) -> None:
    done = kennel("status", "--stage", stage)
    assert f"Kennel-{stage}-Data" in done.stdout
    assert f"kennel upload FOLDER --stage {stage}" in done.stdout


def test_the_status_for_programs_is_json(stage: str) -> None:
    status = json.loads(kennel("status", "--stage", stage, "--json").stdout)
    assert status["stacks"] == {f"Kennel-{stage}-Data": "CREATE_COMPLETE"}
    assert "kennel upload" in status["next"]


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["upload", "nowhere"], 1, "kennel: nowhere does not exist."),
        (["invoke", "nowhere.jpg"], 1, "kennel: nowhere.jpg does not exist; give an image file or a URL."),
        (["invoke", "https://x/y", "--stage", "Gone"], 1, "run `make deploy STAGE=Gone` first."),
        (["status", "--stage", "a/b"], 1, "kennel: 'a/b' is no stage name"),
        (["rehearse", "--model", "vgg"], 2, "Hyperparameter model must be one of resnet18"),
        (["rehearse", "--epochs", "0"], 2, "Hyperparameter epochs must lie between 1 and 10000, not 0."),
        (["rehearse", "--learning-rate", "nan"], 2, "Hyperparameter learning_rate must lie between"),
        (["train", "--epochs", "few"], 2, "Hyperparameter epochs must be a whole number, not 'few'."),
        (["train", "--local", "tests", "--tune", "10001"], 2, "Hyperparameter trials must lie between 0 and 10000"),
        (["train", "--duplicates", "keep"], 2, "Invalid value for '--duplicates'"),
        (["rehearse", "--duplicates", "keep"], 2, "Invalid value for '--duplicates'"),
        (["rehearse", "--weights", "/nowhere.pth"], 2, "Invalid value for '--weights'"),
        (["rehearse", "--tune", "501"], 2, "Invalid value for '--tune'"),
        (["rehearse", "--stage", "a/b"], 1, "kennel: 'a/b' is no stage name"),
        (["rehearse", "--data", "README.md"], 2, "Invalid value for '--data'"),
        (["rehearse", "--photos", "gone.jpg"], 2, "Invalid value for '--photos'"),
        (["rehearse", "--none"], 1, "give --photos FOLDER"),
        (["rehearse", "--none", "--photos", "README.md", "--hold-out", "1"], 1, "give one of the two"),
        (["rehearse", "--hold-out", "-1"], 2, "Invalid value for '--hold-out'"),
        (["rehearse", "--out", "README.md"], 2, "Invalid value for '--out'"),
        (["invoke", "x.jpg", "--top-k", "0"], 2, "--top-k"),
        (["upload"], 2, "Missing argument"),
        (["bark"], 2, "No such command 'bark'"),
    ],
)
def test_a_mistake_is_one_clear_sentence_on_stderr(arguments: list[str], code: int, says: str) -> None:
    done = kennel(*arguments)
    assert says in done.stderr
    assert done.exit_code == code
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"AWS_REGION": None, "AWS_DEFAULT_REGION": None}, "No AWS region is set"),
        ({"AWS_PROFILE": "nobody"}, "nobody"),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            "Is the rehearsal that printed this AWS_ENDPOINT_URL still running?",
        ),
    ],
)
def test_what_the_environment_lacks_is_said(
    aws: str, tmp_path: Path, environment: dict[str, str | None], says: str
) -> None:
    nothing = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    done = kennel("status", **nothing, **environment)
    assert says in done.stderr
    assert done.exit_code == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_as_the_list_does_and_with_an_example(command: str) -> None:
    wide = {"TERM": "dumb", "COLUMNS": "300"}
    done = kennel(command, "--help", **wide)
    assert done.exit_code == 0
    explained, examples = done.stdout.split("Examples", 1)
    listed = re.search(rf"^\W*{command} +(.*?)\W*$", kennel("--help", **wide).stdout, re.MULTILINE)
    assert listed and listed[1] and listed[1] in explained
    assert f"kennel {command}" in examples


def test_help_needs_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys, kennel.cli\ntry: kennel.cli.app(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'boto3', 'botocore', 'jinja2', 'numpy', 'PIL', 'moto', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "Commands" in done.stdout
    assert done.stdout.endswith("\n[]\n")


@pytest.mark.parametrize("command", ["train", "rehearse"])
def test_every_hyperparameter_is_an_option_with_its_own_help_text(command: str) -> None:
    shown = " ".join(kennel(command, "--help", TERM="dumb", COLUMNS="300").stdout.split())
    for declared in fields(Hyperparameters):
        if declared.name != "trials":  # --tune
            assert option_name(declared) in shown
            assert describe(declared)[1:] in shown


def test_a_rehearsal_shows_and_uses_the_hyperparameters_that_suit_one_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[Options] = []
    monkeypatch.setattr("kennel.rehearsal.rehearse.rehearse", started.append)
    assert "[default: 8]" in kennel("rehearse", "--help", TERM="dumb").stdout
    assert kennel("rehearse", "--epochs", "3").exit_code == 0
    assert started[0].hyperparameters == SUITED_HERE | {"epochs": "3"}
