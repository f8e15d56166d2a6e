"""The images are built in the account, from the two folders, and nothing else changes them."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions

from stacks.config import DEV, StageSettings
from stacks.images import ImagesStack
from tests.stacks.synthesized import Synthesized, text

ROOT = Path(__file__).parents[2]
REPOSITORIES, BUILDS = "AWS::ECR::Repository", "Custom::CDKContainerImageBuild"


def built(**hosting: Any) -> assertions.Template:
    return assertions.Template.from_stack(ImagesStack(cdk.App(), "Images", settings=with_hosting(**hosting)))


def with_hosting(**hosting: Any) -> StageSettings:
    return replace(DEV, hosting=replace(DEV.hosting, **hosting))


def test_the_serving_image_is_built_for_the_runtime_of_the_stage(synth: Synthesized, stage: str) -> None:
    commands = {
        id_[:8]: build["Properties"]["buildCommand"] for id_, build in synth.resources(stage, "Images", BUILDS).items()
    }
    assert "--build-arg RUNTIME=openvino " in commands["Inferenc"]
    assert "RUNTIME" not in commands["Training"]


def test_graviton_gets_an_arm_image_with_onnxruntime_and_training_stays_on_x86() -> None:
    builds = built(instance_type="ml.m8g.large", runtime="onnxruntime").find_resources(BUILDS)
    commands = {id_[:8]: build["Properties"]["buildCommand"] for id_, build in builds.items()}
    assert "--platform linux/arm64" in commands["Inferenc"]
    assert "--build-arg RUNTIME=onnxruntime " in commands["Inferenc"]
    assert "--platform linux/amd64" in commands["Training"]


def test_each_folder_is_built_for_amd64_into_a_repository_of_its_own(synth: Synthesized, stage: str) -> None:
    builds = synth.resources(stage, "Images", BUILDS)
    assert sorted(id_[:8] for id_ in builds) == ["Inferenc", "Training"]
    for id_, build in builds.items():
        assert "--platform linux/amd64" in build["Properties"]["buildCommand"]
        assert id_[:8] in text(build["Properties"]["repositoryUri"])


@pytest.mark.parametrize(
    ("stage", "policy", "emptied"), [("Dev", "Delete", True), ("Prod", "RetainExceptOnCreate", False)]
)
def test_repositories_scan_what_is_pushed_and_keep_the_newest(
    synth: Synthesized, stage: str, policy: str, emptied: bool
) -> None:
    repositories = synth.resources(stage, "Images", REPOSITORIES)
    assert len(repositories) == 2
    for repository in repositories.values():
        assert repository["DeletionPolicy"] == policy
        assert repository["Properties"].get("EmptyOnDelete") is emptied
        assert repository["Properties"]["ImageScanningConfiguration"] == {"ScanOnPush": True}
        assert repository["Properties"]["ImageTagMutability"] == "IMMUTABLE"
        (rule,) = json.loads(repository["Properties"]["LifecyclePolicy"]["LifecyclePolicyText"])["rules"]
        assert rule["selection"]["countType"] == "imageCountMoreThan"
        assert rule["selection"]["countNumber"] == 100


def test_an_image_is_one_output_which_holds_its_whole_uri(synth: Synthesized, stage: str) -> None:
    outputs = synth.template(stage, "Images")["Outputs"]
    for name in ("Training", "Inference"):
        assert f"<{name}Build" in text(outputs[f"{name}ImageUri"]["Value"])


def test_only_the_uris_which_change_with_each_build_are_read_weakly(synth: Synthesized, stage: str) -> None:
    read = re.compile(r"'Fn::GetStackOutput': \{'StackName': '([\w-]+)', 'OutputName': '(\w+)'")
    for stack in synth.rooms(stage):
        template = str(synth.template(stage, stack))
        assert len(read.findall(template)) == template.count("Fn::GetStackOutput"), stack
        assert {*read.findall(template)} <= {
            (f"Kennel-{stage}-Images", "TrainingImageUri"),
            (f"Kennel-{stage}-Images", "InferenceImageUri"),
        }, stack


def test_whatever_runs_an_image_is_deployed_after_it(synth: Synthesized, stage: str) -> None:
    waits = {each["displayName"].split("/")[1]: each["dependencies"] for each in synth.artifacts(stage)}
    for stack in {"Pipeline", "Workbench"} & {*waits}:
        assert any("Images" in each for each in waits[stack]), stack


def test_the_images_are_built_one_after_the_other_with_room_for_both(synth: Synthesized, stage: str) -> None:
    builds = synth.resources(stage, "Images", BUILDS)
    (training,) = [id_ for id_ in builds if id_.startswith("Training")]
    (inference,) = [each for id_, each in builds.items() if id_.startswith("Inference")]
    assert training in inference["DependsOn"]
    project = synth.only(stage, "Images", "AWS::CodeBuild::Project")
    assert project["Environment"]["ComputeType"] == "BUILD_GENERAL1_MEDIUM"


def test_the_build_leaves_no_log_group_that_outlives_the_stage(synth: Synthesized, stage: str) -> None:
    assert synth.resources(stage, "Images", "AWS::Logs::LogGroup") == {}


def test_the_training_program_is_found_from_any_working_directory() -> None:
    assert re.search(r"PYTHONPATH=/opt/program\b", (ROOT / "training" / "Dockerfile").read_text())


def test_running_the_tests_does_not_change_an_image(synth: Synthesized) -> None:
    left_by_python = [*synth.folder.glob("asset.*/**/__pycache__"), *synth.folder.glob("asset.*/**/*.pyc")]
    assert left_by_python == []


def test_the_assets_hold_the_two_programs(synth: Synthesized) -> None:
    assets = {file.parent.name: file.parent for file in synth.folder.glob("asset.*/__main__.py")}
    programs = {frozenset(each.name for each in Path(folder).iterdir()) for folder in assets.values()}
    assert any("hyperparameters.py" in program for program in programs)
    assert any("classifier.py" in program for program in programs)


@pytest.mark.long
@pytest.mark.parametrize(("type_", "runtime"), [("ml.m8g.large", "onnxruntime"), ("ml.g5.xlarge", "torch")])
def test_the_validations_object_to_no_other_processor(tmp_path: Path, type_: str, runtime: str) -> None:
    program = (
        "import app, dataclasses\n"
        f"other = dataclasses.replace(app.DEV.hosting, instance_type={type_!r}, runtime={runtime!r})\n"
        "app.DEV = dataclasses.replace(app.DEV, hosting=other)\n"
        f"app.build({str(tmp_path)!r}).synth()\n"
    )
    validating = {key: value for key, value in os.environ.items() if key != "CDK_VALIDATION"}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=validating, text=True, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
