"""What `kennel releases` makes of the registry and the records, and what approve, reject and rollback do."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from typer.testing import Result

from kennel import releases
from kennel.releases import Entry, state_of
from tests.cli.test_command import kennel
from tests.contracts import validate
from tests.rehearsal.cloud.world import World

GROUP = "arn:aws:sagemaker:us-east-1:123456789012:model-package/kennel-dev"
BY = "arn:aws:sts::123456789012:assumed-role/Admin/anna"


def entries(*said: str) -> list[Entry]:
    """Entries from texts such as "2 live": version and state, a second apart."""
    return [
        Entry(int(version), f"20261130T1630{second:02}.000Z", state, "")
        for second, (version, state) in enumerate(text.split() for text in said)
    ]


FIRST = ("1 approved", "1 releasing", "1 live")


@pytest.mark.parametrize(
    ("said", "version", "approval", "state"),
    [
        ((), 1, "PendingManualApproval", "waiting"),
        ((), 1, "Rejected", "rejected"),
        ((), 1, "Approved", "approved"),
        (("1 approved",), 1, "Approved", "approved"),
        (("1 approved",), 1, "PendingManualApproval", "waiting"),
        (FIRST[:2], 1, "Approved", "releasing"),
        ((*FIRST[:2], "1 baking"), 1, "Approved", "baking"),
        (FIRST, 1, "Approved", "live"),
        ((*FIRST, "1 approved"), 1, "Approved", "live"),
        ((*FIRST, "1 rejected"), 1, "Rejected", "live"),
        ((*FIRST, "2 approved"), 2, "Approved", "approved"),
        ((*FIRST, "2 approved", "2 live"), 1, "Approved", "superseded"),
        ((*FIRST, "1 rejected", "2 approved", "2 live"), 1, "Rejected", "rejected"),
        ((*FIRST, "2 approved", "2 rolled_back"), 2, "Rejected", "rolled_back"),
        ((*FIRST, "2 approved", "2 failed", "2 rejected"), 2, "Rejected", "failed"),
        ((*FIRST, "2 approved", "2 diverged", "2 rejected"), 1, "Approved", "live"),
        ((*FIRST, "2 failed", "2 rejected", "2 approved"), 2, "Approved", "approved"),
        # Two approvals waited, and the newest was released.
        (("2 approved", "3 approved", "3 releasing"), 2, "Approved", "superseded"),
        (("2 approved", "3 approved", "3 releasing"), 3, "Approved", "releasing"),
        # It was approved while another was being released: it is next.
        (("1 approved", "1 releasing", "2 approved", "1 live"), 2, "Approved", "approved"),
    ],
)
def test_the_state_of_a_version_follows_from_the_records(
    said: Sequence[str], version: int, approval: str, state: str
) -> None:
    assert state_of(version, approval, entries(*said))[0] == state


class Registry:
    """A stage whose Data stack, registry and records are all that the commands look at."""

    def __init__(self, world: World) -> None:
        self.sagemaker, self.s3 = world.cloud.client("sagemaker"), world.cloud.client("s3")
        self.sagemaker.create_model_package_group(ModelPackageGroupName="kennel-dev")
        resources = {"B": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "records"}}}
        outputs = {"DataBucketName": {"Value": "records"}, "ModelPackageGroupName": {"Value": "kennel-dev"}}
        world.create(STACK, {"Resources": resources, "Outputs": outputs})
        self._second = 0

    def register(self, status: str = "PendingManualApproval") -> None:
        container = {"Image": "local/x", "ModelDataUrl": "s3://b/m"}
        formats = {"SupportedContentTypes": ["image/*"], "SupportedResponseMIMETypes": ["application/json"]}
        self.sagemaker.create_model_package(
            ModelPackageGroupName="kennel-dev",
            InferenceSpecification={"Containers": [container], **formats},
            ModelApprovalStatus=status,
            CustomerMetadataProperties={"accuracy": "0.9", "test_samples": "100"},
        )

    def record(self, *said: str, why: str = "", alarm: str = "") -> None:
        """Write records from texts such as "2 live"."""
        for text in said:
            version, state = text.split()
            at = f"2026-11-30T16:30:{self._second:02}.000Z"
            self._second += 1
            own = state in ("approved", "rejected")
            token = "" if own else f"release-{version}-1"
            record = {"version": int(version), "model_package": f"{GROUP}/{version}", "state": state, "at": at}
            record |= {"by": BY * own, "why": why, "alarm": alarm, "token": token}
            validate("release", record)
            key = f"releases/{int(version):06}/{at.replace('-', '').replace(':', '')}-{state}.json"
            self.s3.put_object(Bucket="records", Key=key, Body=json.dumps(record).encode())

    def approval(self, version: int) -> tuple[str, str]:
        about = self.sagemaker.describe_model_package(ModelPackageName=f"{GROUP}/{version}")
        return about["ModelApprovalStatus"], about.get("ApprovalDescription", "")


STACK = "Kennel-Dev-Data"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    world = World(tmp_path)
    with world.cloud:
        for name, value in world.cloud.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # with the credentials of another embedded AWS
        yield Registry(world)


def shown(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(kennel("releases", "--json", *arguments).stdout)
    return found


def refused(done: Result) -> str:
    assert done.exit_code == 1
    return done.stderr


def test_without_a_model_it_says_how_to_get_one(registry: Registry) -> None:
    assert "kennel upload FOLDER --stage Dev" in kennel("releases").stdout


def test_a_version_is_shown_with_who_when_how_good_and_what_became_of_it(registry: Registry) -> None:
    registry.register("Approved")
    registry.register()
    registry.record(*FIRST)
    registry.record("2 approved")
    registry.record("2 rolled_back", why="RollbackErrors rang", alarm="Kennel-Dev-Hosting-RollbackErrors-1")
    second, first = shown()
    assert (first["version"], first["state"], first["since"][:16]) == (1, "live", "2026-11-30T16:30")
    assert (first["approved_by"], first["approval"]) == (BY, "Approved")
    assert first["accuracy"] == pytest.approx({"value": 0.9, "low": 0.8256, "high": 0.9448}, abs=1e-4)
    assert (second["state"], second["alarm"]) == ("rolled_back", "Kennel-Dev-Hosting-RollbackErrors-1")
    text = kennel("releases", COLUMNS="160").stdout
    assert "rolled back by Kennel-Dev-Hosting-RollbackErrors-1" in text
    assert "Admin/anna" in text
    assert "90.0% (82.6% to 94.5%)" in text


def test_a_version_that_is_rejected_while_it_is_served_says_so(registry: Registry) -> None:
    registry.register("Approved")
    registry.record(*FIRST)
    assert kennel("reject", "1", "--why", "mixes up sheep").exit_code == 0
    (only,) = shown()
    assert (only["state"], only["why"]) == ("live", "rejected, but still served: mixes up sheep")


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        ("Approved", ["PendingManualApproval", "Approved"]),  # the same status again would be no event
        ("Rejected", ["Approved"]),
        ("PendingManualApproval", ["Approved"]),
    ],
)
def test_an_approval_changes_the_status_so_that_it_is_an_event(
    registry: Registry, status: str, changes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(status)
    statuses: list[str] = []
    set_approval = releases._set_approval

    def remember(client: Any, arn: str, status: str, why: str) -> None:
        statuses.append(status)
        set_approval(client, arn, status, why)

    monkeypatch.setattr(releases, "_set_approval", remember)
    assert kennel("approve", "1", "--why", "looked at it").exit_code == 0
    assert statuses == changes
    assert registry.approval(1) == ("Approved", "looked at it")


def test_a_version_that_is_not_there_is_named_with_what_shows_those_that_are(registry: Registry) -> None:
    registry.register()
    assert "no version 7 in Dev: `kennel releases --stage Dev`" in refused(kennel("approve", "7"))


def test_a_rejection_needs_a_reason_and_keeps_it(registry: Registry) -> None:
    registry.register("Approved")
    for why in ((), ("--why", " \n"), ("--why", "x" * 1025)):
        assert kennel("reject", "1", *why).exit_code == 2
    assert registry.approval(1)[0] == "Approved"
    assert kennel("reject", "1", "--why", "mixes up\n\x1b[31msheep").exit_code == 0
    assert registry.approval(1) == ("Rejected", "mixes up [31msheep")
    assert kennel("reject", "1", "--why", "and goats").exit_code == 0
    assert shown()[0]["why"] == "and goats"


def test_what_others_wrote_into_a_record_cannot_command_the_terminal(registry: Registry) -> None:
    registry.register("Approved")
    registry.record("1 failed", why="\x1b]0;owned\x07bad\r\nmodel")
    assert shown()[0]["why"] == "]0;owned bad model"


def test_a_rollback_approves_the_version_before_and_rejects_the_live_one(registry: Registry) -> None:
    for _ in range(3):
        registry.register("Approved")
    registry.record(*FIRST, "2 live", "3 live")
    registry.sagemaker.update_model_package(ModelPackageArn=f"{GROUP}/2", ModelApprovalStatus="Rejected")
    done = kennel("rollback", "--why", "customers complain")
    assert done.exit_code == 0, done.stderr
    assert "Version 3 is rejected and version 1 approved in its place" in done.stdout
    assert registry.approval(3) == ("Rejected", "customers complain")
    assert registry.approval(1) == ("Approved", "Rolled back to, in place of version 3: customers complain")


def test_a_rollback_without_a_version_before_is_refused_and_changes_nothing(registry: Registry) -> None:
    assert "No version is live" in refused(kennel("rollback"))
    registry.register("Approved")
    registry.record(*FIRST)
    assert "No version was live before version 1" in refused(kennel("rollback"))
    assert registry.approval(1)[0] == "Approved"


def test_a_rollback_waits_for_a_release_that_is_under_way(registry: Registry) -> None:
    for _ in range(3):
        registry.register("Approved")
    registry.record(*FIRST, "2 live", "3 approved", "3 releasing")
    said = refused(kennel("rollback"))
    assert "Version 3 is being released" in said
    assert "cancel-update-stack" in said
