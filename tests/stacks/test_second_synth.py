"""A second synthesis, of a checkout that differs: what the CLI then deploys, which is each stack whose text changed."""

import difflib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stacks.synthesized import Synthesized

ROOT = Path(__file__).parents[2]
SOURCES = ("app.py", "cdk.json", "inference", "lambda", "notebooks", "stacks", "training")


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """The assembly of a checkout that only its owner can read, with one line more in training/."""
    checkout, outdir = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("out") / "cdk.out"
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    for path in checkout.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    with (checkout / "training" / "train" / "engine.py").open("a") as engine:
        engine.write("# One line more.\n")
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(outdir.parent), "CDK_OUTDIR": str(outdir), "CDK_VALIDATION": "false"}
    if "JSII_NODE" in os.environ:
        clean["JSII_NODE"] = os.environ["JSII_NODE"]
    run = subprocess.run(
        [sys.executable, "app.py"], cwd=checkout, env=clean, umask=0o077, text=True, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return Synthesized(outdir)


def changed_lines(before: Synthesized, after: Synthesized, stage: str, stack: str) -> list[str]:
    """The lines that a diff of the stack's templates shows."""
    old, new = (json.dumps(each.template(stage, stack), indent=1).splitlines() for each in (before, after))
    return [line for line in difflib.ndiff(old, new) if line[0] in "+-"]


def test_an_edit_of_the_training_program_reaches_whatever_runs_its_image_and_nothing_else(
    synth: Synthesized, edited: Synthesized, stage: str
) -> None:
    changed = {stack for stack in synth.rooms(stage) if changed_lines(synth, edited, stage, stack)}
    assert changed == {"Images", "Pipeline"} | ({"Workbench"} if stage == "Prod" else set())


def test_a_reviewer_reads_few_lines_for_such_an_edit(synth: Synthesized, edited: Synthesized, stage: str) -> None:
    for stack in synth.rooms(stage):
        assert len(changed_lines(synth, edited, stage, stack)) <= 10, stack


def test_the_modes_of_a_checkouts_files_are_no_change_of_the_image_that_serves(
    synth: Synthesized, edited: Synthesized, stage: str
) -> None:
    lines = changed_lines(synth, edited, stage, "Pipeline")
    assert len(lines) == 2
    before, after = (line.split("inference ")[1] for line in lines)
    assert before == after


def test_the_user_of_lambda_can_read_what_a_checkout_under_umask_077_deploys(edited: Synthesized) -> None:
    files = [path for asset in edited.folder.glob("asset.*") for path in (asset, *asset.rglob("*"))]
    modes = {"folder" if path.is_dir() else path.suffix: stat.S_IMODE(path.stat().st_mode) for path in files}
    assert modes["folder"] == 0o755
    assert modes[".py"] == modes[".ipynb"] == modes[".js"] == 0o644
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644, 0o755}
