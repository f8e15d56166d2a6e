"""From an approval to the endpoint, by the synthesized templates and the real promote function, as events may come."""

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kennel.rehearsal.cloud.deployment import Deployed, deploy
from kennel.rehearsal.interfaces import Deployment, FunctionAnswer, FunctionCall
from tests.rehearsal.cloud.world import World, eventually

_RUN = (
    "import json, sys\n"
    "from importlib import import_module\n"
    "package, _, name = sys.argv[1].rpartition('.')\n"
    "print(json.dumps(getattr(import_module(package), name)(json.load(sys.stdin), None)))\n"
)


class Stage:
    """A deployed stage whose promote function runs for real, and an endpoint that waits for `go` before it serves."""

    runs: tuple[str, ...] = ("promote",)  # the packages whose functions run

    def __init__(self, world: World, deployed: Deployed) -> None:
        self.world, self.outputs, self.name = world, deployed.outputs, deployed.stage
        self.go = threading.Event()
        self.go.set()
        self.answers: list[dict[str, Any]] = []  # of the promote function
        world.function = self._run
        world.cloud.data_plane.deploy_endpoint = self._deploy
        self.sagemaker = world.cloud.client("sagemaker")

    def _deploy(self, deployment: Deployment) -> None:
        self.world.deployments.append(deployment)
        assert self.go.wait(60)

    def _run(self, call: FunctionCall) -> FunctionAnswer:
        package = call.handler.partition(".")[0]
        if package not in self.runs:
            return FunctionAnswer(b"null", None, "")
        environment = {**os.environ, **self.world.cloud.environment(call.role_arn), **call.environment}
        command = [sys.executable, "-c", _RUN, call.handler]
        run = subprocess.run(
            command, input=call.payload, capture_output=True, check=False, cwd=call.code, env=environment
        )
        if run.returncode:
            return FunctionAnswer(run.stderr[-500:], "Unhandled", "")
        answer = run.stdout.splitlines()[-1]
        if package == "promote":
            self.answers.append(json.loads(answer))
        return FunctionAnswer(answer, None, "")

    def package(self, status: str = "PendingManualApproval") -> str:
        formats = {"SupportedContentTypes": ["image/*"], "SupportedResponseMIMETypes": ["application/json"]}
        container = {"Image": "local/x", "ModelDataUrl": "s3://b/m"}
        made = self.sagemaker.create_model_package(
            ModelPackageGroupName=self.outputs[f"Kennel-{self.name}-Data"]["ModelPackageGroupName"],
            InferenceSpecification={"Containers": [container], **formats},
            ModelApprovalStatus=status,
        )
        return str(made["ModelPackageArn"])

    def approve(self, package: str) -> None:
        self.sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")

    def say_approved(self, package: str, at: str) -> None:
        """Send the event of an approval at a time of its own, as a copy of it that comes late."""
        about = self.sagemaker.describe_model_package(ModelPackageName=package)
        detail = {
            "ModelPackageGroupName": about["ModelPackageGroupName"],
            "ModelPackageArn": package,
            "ModelPackageStatus": "Completed",
            "ModelApprovalStatus": "Approved",
            "UpdatedModelPackageFields": ["ModelApprovalStatus"],
            "LastModifiedTime": at,
        }
        entry = {"Source": "aws.sagemaker", "DetailType": "SageMaker Model Package State Change"}
        self.world.cloud.client("events").put_events(Entries=[{**entry, "Detail": json.dumps(detail)}])

    def wait_until_served(self, package: str) -> None:
        wanted = {"ParameterKey": "ModelPackageArn", "ParameterValue": package}

        def served() -> bool:
            found = self.world.stack(f"Kennel-{self.name}-Hosting")
            return wanted in found["Parameters"] and found["StackStatus"] == "UPDATE_COMPLETE"

        eventually(served)

    def served(self) -> list[str]:
        """What the endpoint was told to serve, first to last."""
        return [one.environment["MODEL_PACKAGE_ARN"] for one in self.world.deployments]


@pytest.fixture
def stage(assembly: Path, tmp_path: Path) -> Iterator[Stage]:
    world = World(tmp_path)
    with world.cloud:
        yield Stage(world, deploy(world.cloud, assembly, "Dev"))


def test_an_edit_of_a_model_that_was_approved_long_ago_releases_nothing(stage: Stage) -> None:
    first = stage.package("Approved")
    stage.wait_until_served(first)
    second = stage.package("Approved")
    stage.wait_until_served(second)
    stage.sagemaker.update_model_package(ModelPackageArn=first, CustomerMetadataProperties={"note": "was good"})
    stage.sagemaker.update_model_package(
        ModelPackageArn=first, ModelLifeCycle={"Stage": "Production", "StageStatus": "Superseded"}
    )
    eventually(lambda: len(stage.answers) == 2)
    stage.say_approved(first, "2000-01-01T00:00:00Z")  # a message behind which none of the edits can wait unseen
    eventually(lambda: len(stage.answers) == 3)
    assert stage.answers[2]["action"] == "ignored"
    assert stage.served() == [first, second]


def test_of_the_approvals_during_a_release_the_newest_is_released_after_it(stage: Stage) -> None:
    first, second, third = (stage.package() for _ in range(3))
    stage.go.clear()
    stage.approve(first)
    eventually(stage.served)
    stage.approve(second)
    eventually(lambda: "StackBusy" in stage.world.cloud.event_sources.failure)
    stage.approve(third)
    stage.go.set()
    stage.wait_until_served(third)
    assert stage.served() == [first, third]
    eventually(lambda: len(stage.answers) == 2)
    assert stage.answers[1]["superseded"] == [second]
    assert stage.world.cloud.denied == []


def test_an_event_that_comes_late_does_not_bring_back_the_model_before(stage: Stage) -> None:
    first, second = stage.package(), stage.package()
    stage.approve(first)
    stage.wait_until_served(first)
    stage.approve(second)
    stage.wait_until_served(second)
    stage.say_approved(first, "2000-01-01T00:00:00Z")
    eventually(lambda: stage.answers[-1]["action"] == "ignored")
    assert stage.served() == [first, second]


def test_events_that_come_twice_and_in_disorder_release_each_approval_once(stage: Stage) -> None:
    stage.world.cloud.bus.delays = itertools.cycle([(0.0, 0.1, 0.2), (0.4, 0.6), (0.0,)])
    packages = []
    for _ in range(3):
        packages.append(stage.package("Approved"))
        stage.wait_until_served(packages[-1])
    assert stage.served() == packages
