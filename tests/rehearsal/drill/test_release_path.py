"""Releases by the whole way, from the approval to the record: what is known, told and cured after each kind of end.

The synthesized rules, queues, roles, functions and settings of Prod, on real servers, in simulated time.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from moto.sns.models import sns_backends

from kennel.rehearsal.cloud.cloudformation.types.sagemaker import HANDLER
from kennel.rehearsal.cloud.deployment import deploy
from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.drill.stage import Packages, embedded
from kennel.rehearsal.interfaces import Deployment
from kennel.rehearsal.rehearse import synthesize
from kennel.releases import Release, gather, read_entries
from tests.rehearsal.cloud.world import eventually

pytestmark = pytest.mark.long
_LONGEST_S = 1200  # of a release, in real time; it only ends a test that hangs


class Prod:
    """The deployed stage; models are those of the drill."""

    def __init__(self, cloud: Cloud, outputs: dict[str, dict[str, str]], packages: Packages) -> None:
        self.cloud, self._packages = cloud, packages
        self.outputs = {name.rpartition("-")[2]: one for name, one in outputs.items()}
        self.hosting = next(name for name in outputs if name.endswith("-Hosting"))
        self.bucket = self.outputs["Data"]["DataBucketName"]

    def approve(self, model: str) -> int:
        """Register and approve a new version of a model, and return its number; all else follows from that."""
        return int(self._packages.register(model).rpartition("/")[2])

    def live(self, model: str) -> int:
        version = self.approve(model)
        self.become(version, "live")
        return version

    def become(self, version: int, state: str) -> Release:
        """Wait until `kennel releases` shows a version in that state."""

        def found() -> Release | None:
            listed = gather(self.cloud.client, self.outputs["Data"]["ModelPackageGroupName"], self.bucket)
            return next((one for one in listed if (one.version, one.state) == (version, state)), None)

        return eventually(found, _LONGEST_S)  # type: ignore[no-any-return]

    def wait_until_live(self, version: int, times: int) -> None:
        """Wait until a version has been recorded as live so many times."""

        def counted() -> bool:
            states = [one.state for one in read_entries(self.cloud.client("s3"), self.bucket) if one.version == version]
            return states.count("live") == times

        eventually(counted, _LONGEST_S)

    def served(self) -> str:
        """The ARN of the package whose model the endpoint serves, which is the one that the stack says."""
        sagemaker, cloudformation = self.cloud.client("sagemaker"), self.cloud.client("cloudformation")
        about = sagemaker.describe_endpoint(EndpointName=self.outputs["Hosting"]["EndpointName"])
        resources = cloudformation.describe_stack_resources(StackName=self.hosting)["StackResources"]
        (declared,) = [one for one in resources if one["ResourceType"] == "AWS::SageMaker::EndpointConfig"]
        name = about["EndpointConfigName"]
        assert declared["PhysicalResourceId"].rpartition("/")[2].lower() == name.lower()
        config = sagemaker.describe_endpoint_config(EndpointConfigName=name)
        model = sagemaker.describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
        package = str(model["PrimaryContainer"]["ModelPackageName"])
        assert package in [one["ParameterValue"] for one in self.stack()["Parameters"]]
        return package

    def stack(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cloud.client("cloudformation").describe_stacks(StackName=self.hosting)["Stacks"][0]
        return found

    def ring(self, alarm: str) -> None:
        """Let an alarm ring for a moment, as after a bad minute."""
        cloudwatch = self.cloud.client("cloudwatch")
        alarms = cloudwatch.describe_alarms(AlarmNamePrefix=f"{self.hosting}-{alarm}")["MetricAlarms"]
        cloudwatch.set_alarm_state(AlarmName=alarms[0]["AlarmName"], StateValue="ALARM", StateReason="a bad minute")

    def rang(self) -> list[str]:
        return [name for _, name in self.cloud.alarms.rang]

    def told(self) -> list[str]:
        topic = sns_backends["123456789012"]["us-east-1"].topics[self.outputs["Operations"]["AlarmTopicArn"]]
        return [str(subject) for _, _, subject, *_ in topic.sent_notifications]


@pytest.fixture(scope="module")
def prod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prod]:
    work = tmp_path_factory.mktemp("prod")
    assembly = synthesize(work / "cdk.out")
    with embedded(work) as (cloud, _):
        deployed = deploy(cloud, assembly, "Prod")
        yield Prod(cloud, deployed.outputs, Packages(cloud, deployed, work))
        assert cloud.denied == []


@pytest.fixture
def unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """CloudFormation takes an endpoint that SageMaker has rolled back for updated."""
    monkeypatch.setattr(HANDLER, "notices_rollback", False)


@pytest.mark.parametrize(("model", "alarm"), [("slow", "RollbackLatency"), ("wrong labels", "RollbackAnswers")])
def test_the_record_names_the_alarm_that_took_the_release_back(prod: Prod, model: str, alarm: str) -> None:
    good = prod.live("good")
    before = len(prod.rang())
    version = prod.approve(model)
    release = prod.become(version, "rolled_back")
    assert next(name for name in prod.rang()[before:] if "-Rollback" in name) == release.alarm
    assert release.alarm.startswith(f"{prod.hosting}-{alarm}")
    assert (release.approval, prod.stack()["StackStatus"]) == ("Rejected", "UPDATE_ROLLBACK_COMPLETE")
    assert f"kennel-prod: version {version} was rolled back by {release.alarm}" in prod.told()
    assert prod.served().endswith(f"/{good}")


@pytest.mark.usefixtures("unnoticed")
def test_a_rollback_that_cloudformation_takes_for_a_release_is_told_and_the_version_before_released_again(
    prod: Prod,
) -> None:
    good = prod.live("good")
    prod.ring("RollbackErrors")  # so promote hands it to SageMaker alone: CloudFormation sees nothing of this release
    before, told = len(prod.rang()), len(prod.told())
    version = prod.approve("always an error")
    release = prod.become(version, "diverged")
    assert release.alarm.startswith(f"{prod.hosting}-RollbackErrors")
    assert release.approval == "Rejected"
    prod.wait_until_live(good, times=2)
    assert prod.served().endswith(f"/{good}")
    assert prod.stack()["StackStatus"] == "UPDATE_COMPLETE"
    assert [name for name in prod.rang()[before:] if "ReleaseDiverged" in name]
    subjects = [subject for subject in prod.told()[told:] if "version" in subject]
    assert subjects == [
        f"kennel-prod: DIVERGED, after version {version} the endpoint serves something else",
        f"kennel-prod: version {good} is live",
    ]


@pytest.mark.usefixtures("unnoticed")
def test_what_cloudformations_own_rollback_leaves_behind_is_cured_in_the_same_way(
    prod: Prod, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = prod.live("good")
    sagemaker, deploy_fleet = prod.cloud.client("sagemaker"), prod.cloud.data_plane.deploy_endpoint
    endpoint = prod.outputs["Hosting"]["EndpointName"]
    old = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]

    def refuse_the_old(deployment: Deployment) -> None:
        if deployment.config == old:
            raise RuntimeError("Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity")
        deploy_fleet(deployment)

    def ring_after_the_update() -> None:
        """While CloudFormation goes on watching the endpoint that SageMaker has updated."""
        about = sagemaker.describe_endpoint(EndpointName=endpoint)
        if about["EndpointStatus"] == "InService" and about["EndpointConfigName"] != old:
            during.remove(ring_after_the_update)
            prod.ring("RollbackLatency")

    during = prod.cloud.time.during
    during.append(ring_after_the_update)
    monkeypatch.setattr(prod.cloud.data_plane, "deploy_endpoint", refuse_the_old)
    version = prod.approve("good")
    release = prod.become(version, "diverged")
    assert "UPDATE_ROLLBACK_COMPLETE" in release.why
    assert release.alarm.startswith(f"{prod.hosting}-RollbackLatency")
    prod.wait_until_live(good, times=2)
    assert prod.served().endswith(f"/{good}")
