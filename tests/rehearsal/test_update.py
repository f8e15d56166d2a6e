"""Second deployments by the real CDK command line: what was edited is what runs; a mistake is said in a sentence."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kennel.errors import KennelError
from kennel.rehearsal import update
from kennel.rehearsal.cloud.deployment import bootstrap
from kennel.rehearsal.interfaces import FunctionAnswer, FunctionCall
from kennel.rehearsal.rehearse import synthesize
from kennel.rehearsal.update import CODE_EDITS, SETTING_EDITS, CdkCli, Edit, SourceTree
from tests.rehearsal.cloud.world import World

ROOT = Path(__file__).resolve().parents[2]
_KENNEL = "from kennel.cli import app; app(prog_name='kennel')"
_QUICK = ("--epochs", "1", "--threshold", "0.01")


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    return SourceTree(tmp_path / "source")


def test_every_edit_of_the_rehearsal_still_fits_the_source(tree: SourceTree) -> None:
    tree.apply(*CODE_EDITS, *SETTING_EDITS)
    for edit in (*CODE_EDITS, *SETTING_EDITS):
        assert edit.after in (tree.folder / edit.file).read_text()
        assert edit.before in (ROOT / edit.file).read_text()  # the user's own file is as it was


def test_an_edit_that_no_longer_fits_is_said_with_its_file(tree: SourceTree) -> None:
    with pytest.raises(KennelError, match=r"app\.py lacks the line that the rehearsal edits: nothing like it"):
        tree.apply(Edit("app.py", "nothing like it\n", ""))


def test_the_copied_training_program_has_the_originals_hash_until_it_is_edited(tree: SourceTree) -> None:
    def of_the_repository() -> str:
        program = "from training.passport import code_sha256; print(code_sha256())"
        return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    assert tree.training_sha256() == of_the_repository()
    tree.apply(*CODE_EDITS)
    assert tree.training_sha256() != of_the_repository()


def _command_line(monkeypatch: pytest.MonkeyPatch, work: Path, script: str) -> CdkCli:
    """The command line with a script of Python in the place of Node's."""
    (work / "cdk.py").write_text(script)
    monkeypatch.setattr(update, "_CLI", work / "cdk.py")
    monkeypatch.setattr(update, "NODE", Path(sys.executable))
    return CdkCli(work, {"AWS_ENDPOINT_URL": "http://localhost:1"})


def test_the_command_line_gets_nothing_of_the_users_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_PROFILE", "HTTPS_PROXY", "https_proxy", "NODE_OPTIONS", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
        monkeypatch.setenv(name, "the user's")
    told = tmp_path / "environment.json"
    script = f"import json, os; json.dump(dict(os.environ), open({str(told)!r}, 'w'))"
    _command_line(monkeypatch, tmp_path, script).deploy(tmp_path, "Dev", lambda line: None)
    seen = json.loads(told.read_text())
    assert "the user's" not in seen.values()
    assert seen["AWS_ENDPOINT_URL"] == "http://localhost:1"
    assert seen["CDK_DISABLE_CLI_TELEMETRY"] == "true"
    assert all(seen[name].startswith(str(tmp_path)) for name in ("HOME", "CDK_HOME", "TMPDIR"))


def test_a_deployment_tells_what_was_skipped_and_a_failure_how_it_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = """
print("Dev-Images | 5:45:39 PM | CREATE_COMPLETE | ...")
print(" ✅  Dev/Data (Kennel-Dev-Data) (no changes)")
print(" ✅  Dev/Images (Kennel-Dev-Images)")
"""
    said: list[str] = []
    cli = _command_line(monkeypatch, tmp_path, script)
    assert cli.deploy(tmp_path, "Dev", said.append) == {"Kennel-Dev-Data": False, "Kennel-Dev-Images": True}
    assert said == ["Kennel-Dev-Data: skipped, no changes", "Kennel-Dev-Images: deployed"]
    cli = _command_line(monkeypatch, tmp_path, "import sys; print('❌ Dev-Data is stuck'); sys.exit(1)")
    with pytest.raises(KennelError, match="`cdk destroy` ended with exit code 1:\n❌ Dev-Data is stuck"):
        cli.destroy(tmp_path, "Dev", said.append)


def test_a_missing_command_line_is_said_with_what_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(update, "_CLI", tmp_path / "node_modules/aws-cdk/bin/cdk")
    with pytest.raises(KennelError, match="`make env` installs it"):
        CdkCli(tmp_path, {})


def test_keep_and_update_exclude_each_other() -> None:
    command = [sys.executable, "-c", _KENNEL, "rehearse", "--keep", "--update"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "--keep has nothing to keep up" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("stage", "run_the_programs"), [("Dev", {"Images", "Pipeline"}), ("Prod", {"Images", "Pipeline", "Workbench"})]
)
def test_the_command_line_deploys_what_an_edit_concerns_and_skips_the_rest(
    tree: SourceTree, tmp_path: Path, stage: str, run_the_programs: set[str]
) -> None:
    world = World(tmp_path / "cloud")
    usual = world.function

    def function(call: FunctionCall) -> FunctionAnswer:
        """No program runs here; CodeDeploy's hook lets each version pass."""
        if "PreTraffic" in call.arn:
            event = json.loads(call.payload)
            world.cloud.client("codedeploy", call.role_arn).put_lifecycle_event_hook_execution_status(
                deploymentId=event["DeploymentId"],
                lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
                status="Succeeded",
            )
        return usual(call)

    world.function = function
    with world.cloud:
        bootstrap(world.cloud)
        cli = CdkCli(tmp_path, world.cloud.environment())

        def deployed(name: str) -> set[str]:
            changed = cli.deploy(synthesize(tmp_path / name, tree.folder), stage, lambda line: None)
            return {stack.rpartition("-")[2] for stack, is_changed in changed.items() if is_changed}

        everything = deployed("first")
        assert run_the_programs < everything
        assert deployed("same") == set()
        tree.apply(*CODE_EDITS)
        assert deployed("code") == run_the_programs
        tree.apply(*SETTING_EDITS)
        assert deployed("setting") == {"Classify"}
        assert world.cloud.denied == []


def _pictures(folder: Path) -> Path:
    """Eighty small pictures of two classes: how well they are told apart does not matter here."""
    for split, count in {"train": 24, "valid": 8, "test": 8}.items():
        for label, colour in {"red": (200, 40, 40), "blue": (40, 40, 200)}.items():
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                noise = random.Random(f"{split}{label}{number}").randbytes(3 * 32 * 32)
                picture = Image.blend(Image.new("RGB", (32, 32), colour), Image.frombytes("RGB", (32, 32), noise), 0.4)
                picture.save(folder / split / label / f"{number}.png")
    return folder


def _rehearse(
    out: Path, program: str = _KENNEL, **settings: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTEST_"))}
    options = ("--update", "--data", str(_pictures(out / "data")), *_QUICK, "--out", str(out))
    command = [sys.executable, "-c", program, "rehearse", *options]
    done = subprocess.run(
        command, cwd=ROOT, env=environment | settings, capture_output=True, text=True, timeout=1800, check=False
    )
    return done, json.loads((out / "rehearsal.json").read_text())


@pytest.mark.long
@pytest.mark.torch
def test_edited_code_runs_a_setting_changes_and_a_destroyed_stage_can_be_deployed_again(tmp_path: Path) -> None:
    # Settings of a user that would lead elsewhere: neither the rehearsal nor the command line may follow them.
    astray = {"AWS_PROFILE": "elsewhere", "AWS_CONFIG_FILE": "/nowhere", "HTTPS_PROXY": "http://127.0.0.1:9"}
    done, found = _rehearse(tmp_path, **astray)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    steps = {step["name"]: step["detail"] for step in found["steps"] if step["status"] == "done"}
    assert "those of the edited code" in steps["Compare what ran with the edited code"]
    assert "the released model still answers" in steps["Change a setting, and deploy"]
    assert "no bucket, function, role, model or endpoint is left" in steps["Destroy Dev"]
    assert "no model is released yet" in steps["Deploy again into the empty account"]
    deployments = [step["detail"] for step in found["steps"] if step["name"] == "cdk deploy Dev"]
    assert len(deployments) == 4
    assert all(detail.endswith(" 0 skipped") for detail in (deployments[0], deployments[3]))
    assert not any(detail.endswith(" 0 skipped") for detail in deployments[1:3])
    assert found["denied"] == []


# The pipeline's text without the fingerprints of its images' sources: as it was when an edit reached nobody.
_WITHOUT_FINGERPRINTS = f"""
from kennel.rehearsal import rehearse, update
class Older(update.SourceTree):
    def __init__(self, folder):
        super().__init__(folder)
        line = "            pipeline_description=_sources(images),\\n"
        self.apply(update.Edit("stacks/pipeline/stack.py", line, ""))
rehearse.SourceTree = Older
{_KENNEL}
"""


@pytest.mark.long
@pytest.mark.torch
def test_a_pipeline_whose_text_does_not_change_with_its_images_is_caught(tmp_path: Path) -> None:
    done, found = _rehearse(tmp_path, _WITHOUT_FINGERPRINTS)
    assert done.returncode == 1
    assert "The edit of training/ did not reach the run after it" in done.stderr
    assert "-Pipeline" in done.stderr
    assert found["failure"].startswith("The edit of training/ did not reach the run after it")
