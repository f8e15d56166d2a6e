"""What a release leaves behind: the synthesized rules, roles and functions, with events as AWS may send them."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.sns.models import sns_backends

from kennel.rehearsal.cloud.deployment import deploy
from kennel.rehearsal.interfaces import Deployment
from kennel.releases import Release, gather, give_approval
from tests.contracts import validate
from tests.rehearsal.cloud.test_release import Stage
from tests.rehearsal.cloud.world import World, eventually


class Recorded(Stage):
    """A stage, its releases as `kennel releases` shows them, and what the topic was told."""

    runs = ("promote", "observe")
    fail = False  # what is deployed next

    def _deploy(self, deployment: Deployment) -> None:
        if self.fail:
            raise RuntimeError("the model does not load")
        super()._deploy(deployment)

    def of(self, stack: str, name: str) -> str:
        return next(found[name] for each, found in self.outputs.items() if each.endswith(f"{self.name}-{stack}"))

    def releases(self) -> dict[int, Release]:
        places = self.of("Data", "ModelPackageGroupName"), self.of("Data", "DataBucketName")
        return {one.version: one for one in gather(self.world.cloud.client, *places)}

    def become(self, version: int, state: str) -> Release:
        """Wait until a version is in that state."""

        def found() -> Release | None:
            release = self.releases().get(version)
            return release if release and release.state == state else None

        return eventually(found)  # type: ignore[no-any-return]

    def records(self, version: int) -> list[str]:
        """The states of a version's records, each of which keeps to its schema."""
        s3, bucket = self.world.cloud.client("s3"), self.of("Data", "DataBucketName")
        listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"releases/{version:06}/").get("Contents", [])
        records: list[dict[str, Any]] = [
            json.loads(s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()) for one in listed
        ]
        for record in records:
            validate("release", record)
        return sorted(record["state"] for record in records)

    def told(self) -> list[str]:
        topic = sns_backends["123456789012"]["us-east-1"].topics[self.of("Operations", "AlarmTopicArn")]
        return [str(subject) for _, _, subject, *_ in topic.sent_notifications]


@pytest.fixture
def stage(assembly: Path, tmp_path: Path) -> Iterator[Recorded]:
    world = World(tmp_path)
    with world.cloud:
        yield Recorded(world, deploy(world.cloud, assembly, "Dev"))


def test_a_release_is_live_in_the_records_the_registry_and_the_topic(stage: Recorded) -> None:
    stage.package("Approved")
    live = stage.become(1, "live")
    assert live.approved_by == "arn:aws:iam::123456789012:user/rehearsal"
    assert stage.records(1) == ["approved", "live", "releasing"]
    eventually(lambda: stage.told() == ["kennel-dev: version 1 is live"])
    stage.package("Approved")
    stage.become(2, "live")
    stage.become(1, "superseded")
    assert stage.world.cloud.denied == []


@pytest.mark.long
def test_a_release_that_fails_is_rejected_by_the_stage_itself_and_not_tried_again(stage: Recorded) -> None:
    stage.package("Approved")
    stage.become(1, "live")
    stage.fail = True
    stage.package("Approved")
    failed = stage.become(2, "failed")
    assert "does not load" in failed.why
    eventually(lambda: stage.records(2) == ["approved", "failed", "rejected", "releasing"])
    assert stage.releases()[2].approval == "Rejected"
    assert stage.releases()[1].state == "live"
    stage.fail = False
    give_approval(stage.world.cloud.client, stage.releases()[2].arn, "once more")
    stage.become(2, "live")
    assert stage.world.cloud.denied == []


@pytest.mark.long
def test_what_the_observer_changes_in_the_registry_sets_nothing_off(stage: Recorded) -> None:
    stage.world.cloud.bus.delays = itertools.cycle([(0.0, 0.1, 0.2), (0.4, 0.6), (0.0,)])
    for version in (1, 2, 3):
        stage.package("Approved")
        stage.become(version, "live")
    assert len(stage.served()) == 3
    assert [stage.records(version) for version in (1, 2, 3)] == [["approved", "live", "releasing"]] * 3
    lives = [subject for subject in stage.told() if subject.endswith("is live")]
    assert lives == [f"kennel-dev: version {version} is live" for version in (1, 2, 3)]
