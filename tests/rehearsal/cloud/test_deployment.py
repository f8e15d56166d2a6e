"""The synthesized app itself, deployed; and assemblies that cannot be."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kennel.assembly import stacks_of
from kennel.errors import KennelError
from kennel.rehearsal.cloud.cloudformation.coverage import missing_from
from kennel.rehearsal.cloud.deployment import Deployed, coverage_of, deploy
from tests.rehearsal.cloud.world import World, eventually

TAG = {"Key": "team", "Value": "vision"}
STACKS = ("Data", "Images", "Pipeline", "Hosting", "Classify", "Release", "Operations")


@pytest.fixture(scope="module", params=["Dev", "Prod"])
def deployed(
    request: pytest.FixtureRequest, assembly: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, Deployed]]:
    world = World(tmp_path_factory.mktemp("cloud"))
    with world.cloud:
        yield world, deploy(world.cloud, assembly, request.param)


def test_every_stack_of_a_stage_is_deployed(deployed: tuple[World, Deployed]) -> None:
    world, done = deployed
    more = ("Network", "Workbench") if done.stage == "Prod" else ()
    assert sorted(done.outputs) == sorted(f"Kennel-{done.stage}-{name}" for name in (*STACKS, *more))
    assert {world.stack(name)["StackStatus"] for name in done.outputs} == {"CREATE_COMPLETE"}


def test_every_resource_has_a_row_that_says_how_far_it_is_enacted(
    deployed: tuple[World, Deployed], assembly: Path
) -> None:
    _, done = deployed
    wanted = [
        (definition["Type"], name)
        for stack in stacks_of(assembly, done.stage)
        for name, definition in stack.read()["Resources"].items()
    ]
    assert sorted((row.type, row.logical_id) for row in done.coverage) == sorted(wanted)
    assert {row.status for row in done.coverage} == {"enacted", "partial", "accepted", "stand-in"}
    assert [row for row in done.coverage if row.status != "enacted" and not row.note] == []


@pytest.mark.parametrize(
    "kind",
    [
        "AWS::S3::Bucket",
        "AWS::SageMaker::Pipeline",
        "AWS::SageMaker::ModelPackageGroup",
        "AWS::Lambda::Function",
        "AWS::Events::Rule",
        "AWS::IAM::Policy",
        "AWS::Logs::LogGroup",
        "AWS::SQS::Queue",
        "AWS::SQS::QueuePolicy",
        "AWS::Lambda::EventSourceMapping",
    ],
)
def test_what_a_rehearsal_depends_on_is_stored_as_written(deployed: tuple[World, Deployed], kind: str) -> None:
    rows = [row for row in deployed[1].coverage if row.type == kind and not row.note.startswith("not created yet")]
    assert rows
    assert [row for row in rows if row.status != "enacted"] == []


def test_a_property_that_the_service_does_not_return_is_named() -> None:
    properties = {"Name": "a", "Rules": [{"Days": 5, "On": "true", "Key": "arn:aws:kms:::key/1"}], "Tags": [TAG]}
    answer = {"name": "a", "rules": {"days": "5", "arn": "arn:aws:kms:::key/1"}, "TagSet": [TAG]}
    assert missing_from(properties, [answer]) == ["Rules.On"]
    assert missing_from(properties, [{**answer, "TagSet": []}]) == ["Rules.On", "Tags.team"]


def test_the_image_builds_are_reported_as_stand_ins(deployed: tuple[World, Deployed]) -> None:
    builds = [row for row in deployed[1].coverage if row.type == "Custom::CDKContainerImageBuild"]
    assert [row.status for row in builds] == ["stand-in", "stand-in"]


def test_an_uploaded_manifest_starts_the_deployed_pipeline(deployed: tuple[World, Deployed]) -> None:
    world, done = deployed
    bucket = done.of("Data")["DataBucketName"]
    world.cloud.client("s3").put_object(Bucket=bucket, Key="datasets/dogs/1.manifest", Body=b"[]")
    eventually(lambda: world.pipelines)
    assert world.pipelines[0].parameters["DataManifest"] == "datasets/dogs/1.manifest"
    assert world.pipelines[0].pipeline_name == done.of("Pipeline")["PipelineName"]


def test_the_release_as_the_promote_function_asks_for_it_works_with_its_own_role(
    deployed: tuple[World, Deployed], assembly: Path
) -> None:
    world, done = deployed
    sagemaker = world.cloud.client("sagemaker")
    group = done.of("Data")["ModelPackageGroupName"]
    formats = {"SupportedContentTypes": ["image/*"], "SupportedResponseMIMETypes": ["application/json"]}
    container = {"Image": "local/x", "ModelDataUrl": "s3://b/m"}
    package = sagemaker.create_model_package(
        ModelPackageGroupName=group,
        InferenceSpecification={"Containers": [container], **formats},
        ModelApprovalStatus="Approved",
    )["ModelPackageArn"]
    called = eventually(lambda: [one for one in world.calls if one.handler.startswith("promote.")])[0]
    logs = world.cloud.client("logs")
    groups = [
        one["logGroupName"] for one in logs.describe_log_groups()["logGroups"] if "PromoteLogs" in one["logGroupName"]
    ]
    found = eventually(lambda: logs.filter_log_events(logGroupName=groups[0])["events"])
    assert [one["message"] for one in found] == ["the function's log"]
    (record,) = json.loads(called.payload)["Records"]
    assert json.loads(record["body"])["model_package"] == package
    stack = called.environment["HOSTING_STACK"]
    cloudformation = world.cloud.client("cloudformation", called.role_arn)
    cloudformation.describe_stacks(StackName=stack)
    parameters = [{"ParameterKey": "ModelPackageArn", "ParameterValue": package}]
    cloudformation.update_stack(
        StackName=stack, UsePreviousTemplate=True, Parameters=parameters, Capabilities=["CAPABILITY_IAM"]
    )
    eventually(lambda: world.stack(stack)["StackStatus"] == "UPDATE_COMPLETE")
    name = done.outputs[stack]["EndpointName"]
    assert sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService"
    assert world.deployments[0].environment["MODEL_PACKAGE_ARN"] == package
    assert world.cloud.denied == []
    rows = {row.logical_id: row for row in coverage_of(assembly, done.stage)}
    assert rows["Endpoint"].status == "enacted"
    assert [row for row in rows.values() if row.note.startswith("not created yet")] == []


def test_an_unknown_stage_is_refused_with_the_known_ones(assembly: Path) -> None:
    with pytest.raises(KennelError, match=r"no stage 'Test'.*Dev, Prod"):
        stacks_of(assembly, "Test")


def test_a_folder_that_is_no_assembly_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KennelError, match="is no cloud assembly"):
        stacks_of(tmp_path, "Dev")


def test_a_missing_asset_is_refused(assembly: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(assembly, tmp_path / "copy")
    for asset in copy.glob("asset.*"):
        shutil.rmtree(asset) if asset.is_dir() else asset.unlink()
    with pytest.raises(KennelError, match="which is not there"):
        stacks_of(copy, "Dev")


def test_a_resource_that_fails_is_named_with_its_reason(assembly: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(assembly, tmp_path / "copy")
    path = next(copy.glob("assembly-Dev/DevData*.template.json"))
    template: dict[str, Any] = json.loads(path.read_text())
    group = next(one for one in template["Resources"].values() if one["Type"] == "AWS::SageMaker::ModelPackageGroup")
    group["Properties"]["ModelPackageGroupName"] = "not a name"
    path.write_text(json.dumps(template))
    world = World(tmp_path / "cloud")
    with (
        world.cloud,
        pytest.raises(KennelError, match="Dev-Data could not be deployed: AWS::SageMaker::ModelPackageGroup"),
    ):
        deploy(world.cloud, copy, "Dev")


def test_two_embedded_clouds_in_a_row_share_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        world = World(tmp_path)
        with world.cloud:
            world.cloud.client("s3").create_bucket(Bucket="mine")
            names = [one["Name"] for one in world.cloud.client("s3").list_buckets()["Buckets"]]
            assert names == ["mine"]


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    first, second = World(tmp_path), World(tmp_path)
    with first.cloud:
        second.cloud.port = int(first.cloud.url.rpartition(":")[2])
        with pytest.raises(KennelError, match="is in use"):
            second.cloud.__enter__()
