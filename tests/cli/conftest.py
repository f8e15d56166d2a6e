"""An AWS on loopback: moto's server, reached with boto3 over HTTP as the command would."""

import json
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3  # type: ignore[import-untyped]
import pytest

if TYPE_CHECKING:
    from tests.cli.page.world import PageWorld


@pytest.fixture
def aws(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the embedded AWS, which the environment names too."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server)
    return moto_server


@pytest.fixture
def bucket(aws: str) -> str:
    name = f"data-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def stage(aws: str) -> str:
    """A stage of its own with nothing but a Data stack."""
    name = f"T{uuid.uuid4().hex[:8]}"
    body = {
        "Resources": {"B": {"Type": "AWS::S3::Bucket"}},
        "Outputs": {"DataBucketName": {"Value": {"Ref": "B"}}},
    }
    boto3.client("cloudformation").create_stack(
        StackName=f"Kennel-{name}-Data",
        TemplateBody=json.dumps(body),
        Tags=[{"Key": "kennel:stage", "Value": name}],
    )
    return name


@pytest.fixture
def s3(aws: str) -> Any:
    return boto3.client("s3")


@pytest.fixture(scope="module")
def shared_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator["PageWorld"]:
    from tests.cli.page.world import page_world  # with an embedded AWS, for which most modules need not wait

    with page_world(tmp_path_factory.mktemp("cloud")) as made:
        yield made


@pytest.fixture
def page(shared_page: "PageWorld") -> "PageWorld":
    """The page in front of an embedded AWS; nothing is left of the test before."""
    shared_page.forget()
    return shared_page
