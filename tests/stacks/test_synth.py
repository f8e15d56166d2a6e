"""Synthesis: from this folder alone, the same bytes each time, nothing that a validator objects to."""

import filecmp
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stacks.synthesized import Synthesized

ROOT = Path(__file__).parents[2]
ROOMS = ["Classify", "Data", "Hosting", "Images", "Operations", "Pipeline", "Release"]
# cfn-lint 1.58 does not know this function yet; its findings on it, and no others, are passed over.
UNKNOWN_TO_CFN_LINT = "Fn::GetStackOutput"


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The assembly of `python app.py` in an interpreter of its own, all validations on, and what it said.

    It has hardly any environment (no credentials, region or home of ours) and a hash seed of its own.
    """
    outdir = tmp_path_factory.mktemp("elsewhere") / "cdk.out"
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(outdir.parent), "CDK_OUTDIR": str(outdir), "PYTHONHASHSEED": "1"}
    run = subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env=clean, text=True, capture_output=True, timeout=300, check=False
    )
    return outdir, run.stdout + run.stderr


def files(folder: Path) -> list[str]:
    """All but stack traces, which name the folder that jsii unpacks itself into, and the report of the validations,
    which are on in one of the two assemblies alone."""
    others = (".metadata.json", "validation-report.json")
    found = (file for file in folder.rglob("*") if file.is_file() and not file.name.endswith(others))
    return sorted(str(file.relative_to(folder)) for file in found)


def test_two_interpreters_with_two_hash_seeds_write_the_same_bytes(
    synth: Synthesized, elsewhere: tuple[Path, str]
) -> None:
    names = files(synth.folder)
    assert [name for name in names if name.endswith(".template.json")]
    assert set(files(elsewhere[0])) == set(names)
    same, different, broken = filecmp.cmpfiles(synth.folder, elsewhere[0], names, shallow=False)
    assert (different, broken) == ([], [])
    assert len(same) == len(names)


def test_neither_account_nor_region_nor_this_machines_folders_enter_a_template(synth: Synthesized, stage: str) -> None:
    for room in synth.rooms(stage):
        text = str(synth.template(stage, room))
        for foreign in (str(ROOT), str(Path.home()) + "/", "123456789012"):
            assert foreign not in text, (room, foreign)


def test_the_validations_of_cdk_cloudformation_and_cdk_nag_find_nothing(elsewhere: tuple[Path, str]) -> None:
    outdir, _ = elsewhere
    report = json.loads((outdir / "validation-report.json").read_text())
    found = {violation["ruleName"] for plugin in report["pluginReports"] for violation in plugin.get("violations", [])}
    assert {rule for rule in found if not rule.startswith("Annotation::kennel:")} == set()


def test_a_stage_that_stays_and_whose_alarms_nobody_hears_is_warned_of(elsewhere: tuple[Path, str]) -> None:
    _, said = elsewhere
    assert "kennel-prod: nobody hears the alarms. Set operations.email" in said
    assert "kennel-dev: nobody hears" not in said


@pytest.mark.long
def test_cdk_nag_is_really_asked(tmp_path: Path) -> None:
    program = (
        "import app, aws_cdk as cdk\n"
        "from aws_cdk import aws_sqs as sqs\n"
        "app.KennelStage = lambda *_, **__: None\n"  # the careless stack alone takes a fraction of the time
        f"built = app.build({str(tmp_path / 'out')!r})\n"
        "sqs.CfnQueue(cdk.Stack(built, 'Careless'), 'Queue')\n"
        "built.synth()\n"
    )
    validating = {key: value for key, value in os.environ.items() if key != "CDK_VALIDATION"}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=validating, text=True, capture_output=True, check=False
    )
    assert run.returncode != 0
    assert "AwsSolutions-SQS4" in run.stdout + run.stderr


def test_both_stages_have_their_rooms(synth: Synthesized) -> None:
    assert synth.rooms("Dev") == ROOMS
    assert synth.rooms("Prod") == sorted([*ROOMS, "Network", "Workbench"])


def test_stacks_are_named_after_stage_and_room_and_carry_the_stages_tag(synth: Synthesized, stage: str) -> None:
    for artifact in synth.artifacts(stage):
        room = artifact["displayName"].split("/")[1]
        assert artifact["properties"]["stackName"] == f"Kennel-{stage}-{room}"
        assert artifact["properties"]["tags"] == {"kennel:stage": stage}


def test_every_stack_says_what_it_is_for(synth: Synthesized, stage: str) -> None:
    for room in synth.rooms(stage):
        assert synth.template(stage, room).get("Description", "").startswith(f"kennel-{stage.lower()}: "), room


def test_templates_are_far_from_cloudformations_limits(synth: Synthesized, stage: str) -> None:
    for room in synth.rooms(stage):
        template = synth.template(stage, room)
        assert len(template["Resources"]) < 100, room  # of 500
        assert len(str(template)) < 200_000, room  # characters, of 1 MB
        assert len(template.get("Outputs", {})) < 50, room  # of 200


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # cfn-lint's own
def test_cfn_lint_finds_no_error(synth: Synthesized) -> None:
    templates = sorted(str(file) for file in synth.folder.rglob("*.template.json"))
    command = [
        str(Path(sys.executable).with_name("cfn-lint")),
        "--non-zero-exit-code",
        "error",
        "--regions",
        "eu-west-1",
    ]
    run = subprocess.run(
        [*command, "--format", "parseable", "--", *templates],
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    errors = [line for line in run.stdout.splitlines() if ":E" in line and UNKNOWN_TO_CFN_LINT not in line]
    assert errors == []
    assert run.stderr == ""
