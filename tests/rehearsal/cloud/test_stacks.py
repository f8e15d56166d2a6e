"""CloudFormation: order, outputs across stacks, releases, replacement, rollback."""

import io
import json
import zipfile
from typing import Any

import pytest

from tests.rehearsal.cloud.world import World, eventually, refusal


@pytest.fixture(scope="module")
def world(empty_world: World) -> World:
    empty_world.role("endpoint")
    empty_world.cloud.client("sagemaker").create_model_package_group(ModelPackageGroupName="kennel-dev")
    return empty_world


ROLE = "arn:aws:iam::123456789012:role/endpoint"
IF = {"Condition": "HasModel"}


def hosting(endpoint: str) -> dict[str, Any]:
    """The shape of the app's hosting stack."""
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
        "InitialInstanceCount": 1,
        "InstanceType": "ml.c7g.large",
    }
    scaling = {
        "MinCapacity": 1,
        "MaxCapacity": 2,
        "ServiceNamespace": "sagemaker",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        "ResourceId": f"endpoint/{endpoint}/variant/AllTraffic",
    }
    model = {"ExecutionRoleArn": ROLE, "PrimaryContainer": {"ModelPackageName": {"Ref": "ModelPackageArn"}}}
    serving = {"EndpointName": endpoint, "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]}}
    return {
        "Parameters": {"ModelPackageArn": {"Type": "String", "Default": "", "AllowedPattern": "(arn:.*)?"}},
        "Conditions": {"HasModel": {"Fn::Not": [{"Fn::Equals": [{"Ref": "ModelPackageArn"}, ""]}]}},
        # Written against the order in which they can be made.
        "Resources": {
            "Target": {
                "Type": "AWS::ApplicationAutoScaling::ScalableTarget",
                "Properties": scaling,
                "DependsOn": "Endpoint",
                **IF,
            },
            "Endpoint": {"Type": "AWS::SageMaker::Endpoint", "Properties": serving, **IF},
            "Config": {"Type": "AWS::SageMaker::EndpointConfig", "Properties": {"ProductionVariants": [variant]}, **IF},
            "Model": {"Type": "AWS::SageMaker::Model", "Properties": model, **IF},
        },
        "Outputs": {"EndpointName": {"Value": endpoint}},
    }


def package(world: World, artifact: str) -> str:
    containers = [{"Image": "local/inference:1", "ModelDataUrl": f"s3://data/{artifact}", "Environment": {"A": "1"}}]
    specification = {
        "Containers": containers,
        "SupportedContentTypes": ["image/*"],
        "SupportedResponseMIMETypes": ["*"],
    }
    answer = world.cloud.client("sagemaker").create_model_package(
        ModelPackageGroupName="kennel-dev", InferenceSpecification=specification, ModelApprovalStatus="Approved"
    )
    return str(answer["ModelPackageArn"])


def test_without_a_model_a_stack_is_made_whose_endpoint_waits(world: World) -> None:
    stack = world.create("Empty", hosting("empty"))
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    assert stack["Outputs"][0]["OutputValue"] == "empty"
    assert world.cloud.client("cloudformation").list_stack_resources(StackName="Empty")["StackResourceSummaries"] == []


def test_a_release_makes_model_config_endpoint_and_scaling_in_order(world: World) -> None:
    arn = package(world, "one.tar.gz")
    world.create("Released", hosting("released"))
    stack = world.update("Released", ModelPackageArn=arn)
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    assert stack["Parameters"] == [{"ParameterKey": "ModelPackageArn", "ParameterValue": arn}]
    made = [name for name, status, _ in world.events("Released") if status == "CREATE_COMPLETE" and name != "Released"]
    assert made == ["Model", "Config", "Endpoint", "Target"]
    about = world.cloud.client("sagemaker").describe_endpoint(EndpointName="released")
    assert (about["EndpointStatus"], about["ProductionVariants"][0]["VariantName"]) == ("InService", "AllTraffic")
    served = world.deployments[-1]
    assert (served.image, served.model_data_url) == ("local/inference:1", "s3://data/one.tar.gz")
    assert (served.role_arn, served.environment) == (ROLE, {"A": "1"})


def test_a_second_release_updates_the_endpoint_in_place_and_then_deletes_what_it_replaced(world: World) -> None:
    world.create("Twice", hosting("twice"))
    sagemaker = world.cloud.client("sagemaker")
    world.update("Twice", ModelPackageArn=package(world, "one.tar.gz"))
    first = sagemaker.describe_endpoint(EndpointName="twice")
    world.update("Twice", ModelPackageArn=package(world, "two.tar.gz"))
    second = sagemaker.describe_endpoint(EndpointName="twice")
    assert second["CreationTime"] == first["CreationTime"]
    assert second["EndpointConfigName"] != first["EndpointConfigName"]
    assert world.deployments[-1].model_data_url == "s3://data/two.tar.gz"
    assert "twice" not in world.deleted
    names = [one["EndpointConfigName"] for one in sagemaker.list_endpoint_configs()["EndpointConfigs"]]
    assert second["EndpointConfigName"] in names
    assert first["EndpointConfigName"] not in names
    steps = [(name, status) for name, status, _ in world.events("Twice")[-5:]]
    assert steps == [
        ("Config", "CREATE_COMPLETE"),
        ("Endpoint", "UPDATE_COMPLETE"),
        ("Config", "DELETE_COMPLETE"),
        ("Model", "DELETE_COMPLETE"),
        ("Twice", "UPDATE_COMPLETE"),
    ]


def test_a_condition_that_turns_false_deletes_its_resources_in_reverse_order(world: World) -> None:
    world.create("Withdrawn", hosting("withdrawn"))
    world.update("Withdrawn", ModelPackageArn=package(world, "one.tar.gz"))
    assert world.update("Withdrawn", ModelPackageArn="")["StackStatus"] == "UPDATE_COMPLETE"
    deleted = [name for name, status, _ in world.events("Withdrawn") if status == "DELETE_COMPLETE"]
    assert deleted == ["Target", "Endpoint", "Config", "Model"]
    assert "withdrawn" in world.deleted


def test_a_model_that_does_not_serve_is_rolled_back_and_the_old_one_stays(world: World) -> None:
    world.create("Guarded", hosting("guarded"))
    good = package(world, "good.tar.gz")
    world.update("Guarded", ModelPackageArn=good)
    sagemaker = world.cloud.client("sagemaker")
    before = sagemaker.describe_endpoint(EndpointName="guarded")
    world.refuse_models = "broken"
    stack = world.update("Guarded", ModelPackageArn=package(world, "broken.tar.gz"))
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "s3://data/broken.tar.gz does not load" in stack["StackStatusReason"]
    assert stack["Parameters"][0]["ParameterValue"] == good
    after = sagemaker.describe_endpoint(EndpointName="guarded")
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", before["EndpointConfigName"])
    failed = [name for name, status, _ in world.events("Guarded") if status == "UPDATE_FAILED"]
    assert failed == ["Endpoint"]
    assert world.update("Guarded", ModelPackageArn=package(world, "better.tar.gz"))["StackStatus"] == "UPDATE_COMPLETE"


def test_a_first_model_that_does_not_serve_leaves_nothing_behind(world: World) -> None:
    world.create("First", hosting("first"))
    world.refuse_models = "broken"
    assert (
        world.update("First", ModelPackageArn=package(world, "broken.gz"))["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    )
    sagemaker = world.cloud.client("sagemaker")
    assert [one for one in sagemaker.list_models()["Models"] if one["ModelName"].startswith("First-")] == []
    assert refusal(sagemaker.describe_endpoint, EndpointName="first")[0] == "ValidationException"


def test_an_update_answers_while_the_work_goes_on(world: World) -> None:
    world.create("Slow", hosting("slow"))
    cloudformation = world.cloud.client("cloudformation")
    arn = package(world, "one.tar.gz")
    parameters = [{"ParameterKey": "ModelPackageArn", "ParameterValue": arn}]
    cloudformation.update_stack(StackName="Slow", UsePreviousTemplate=True, Parameters=parameters)
    eventually(lambda: world.stack("Slow")["StackStatus"] == "UPDATE_COMPLETE")
    code, text = refusal(cloudformation.update_stack, StackName="Slow", UsePreviousTemplate=True, Parameters=parameters)
    assert (code, text) == ("ValidationError", "No updates are to be performed.")


def test_a_parameter_that_breaks_its_pattern_is_refused_before_anything_happens(world: World) -> None:
    world.create("Strict", hosting("strict"))
    update = world.cloud.client("cloudformation").update_stack
    parameters = [{"ParameterKey": "ModelPackageArn", "ParameterValue": "nonsense"}]
    code, text = refusal(update, StackName="Strict", UsePreviousTemplate=True, Parameters=parameters)
    assert (code, "ModelPackageArn" in text) == ("ValidationError", True)
    assert world.stack("Strict")["StackStatus"] == "CREATE_COMPLETE"


def test_a_resource_that_fails_rolls_the_creation_back_and_says_why(world: World) -> None:
    template = {
        "Resources": {
            "Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "halfway"}},
            "Config": {
                "Type": "AWS::SageMaker::EndpointConfig",
                "Properties": {
                    "ProductionVariants": [{"VariantName": "A", "ModelName": "none", "InstanceType": "ml.abacus"}]
                },
                "DependsOn": "Policy",
            },
            "Policy": {
                "Type": "AWS::S3::BucketPolicy",
                "Properties": {
                    "Bucket": {"Ref": "Bucket"},
                    "PolicyDocument": {"Version": "2012-10-17", "Statement": []},
                },
            },
        }
    }
    stack = world.create("Broken", template)
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "AWS::SageMaker::EndpointConfig Config" in stack["StackStatusReason"]
    assert "none" in stack["StackStatusReason"]
    buckets = [one["Name"] for one in world.cloud.client("s3").list_buckets()["Buckets"]]
    assert "halfway" not in buckets
    undone = [(name, status) for name, status, _ in world.events("Broken") if status.startswith("DELETE")]
    assert undone == [("Policy", "DELETE_COMPLETE"), ("Bucket", "DELETE_COMPLETE")]


@pytest.mark.parametrize("kind", ["AWS::Quantum::Ledger", "AWS::DynamoDB::Table"])
def test_a_type_outside_the_table_fails_and_says_what_to_do(world: World, kind: str) -> None:
    stack = world.create(f"Unknown{kind[-5:]}", {"Resources": {"Thing": {"Type": kind, "Properties": {}}}})
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert f"does not know the resource type {kind}" in stack["StackStatusReason"]
    assert "add it to ACCEPTED in kennel/rehearsal/cloud/cloudformation/types/accepted.py" in stack["StackStatusReason"]


def test_references_to_accepted_resources_resolve_in_the_form_of_aws(world: World) -> None:
    template = {
        "Resources": {
            "Repository": {"Type": "AWS::ECR::Repository", "Properties": {"RepositoryName": "late"}},
            "Group": {"Type": "AWS::EC2::SecurityGroup", "Properties": {"GroupDescription": "jobs"}},
            "Notebook": {"Type": "AWS::SageMaker::NotebookInstance", "Properties": {}},
        },
        "Outputs": {
            "Name": {"Value": {"Ref": "Repository"}},
            "Arn": {"Value": {"Fn::GetAtt": ["Repository", "Arn"]}},
            "Ref": {"Value": {"Ref": "Group"}},
            "Id": {"Value": {"Fn::GetAtt": ["Group", "GroupId"]}},
            "Notebook": {"Value": {"Ref": "Notebook"}},
        },
    }
    outputs = {one["OutputKey"]: one["OutputValue"] for one in world.create("Accepted", template)["Outputs"]}
    assert (outputs["Name"], outputs["Arn"]) == ("late", "arn:aws:ecr:us-east-1:123456789012:repository/late")
    assert outputs["Ref"] == outputs["Id"] != ""
    assert outputs["Notebook"].startswith("arn:aws:sagemaker:us-east-1:123456789012:notebook-instance/Accepted-Note")


def test_an_accepted_resource_keeps_its_name_through_a_change(world: World) -> None:
    images = {"Type": "AWS::ECR::Repository", "Properties": {"ImageTagMutability": "MUTABLE"}}
    template = {"Resources": {"T": images}, "Outputs": {"Arn": {"Value": {"Fn::GetAtt": ["T", "Arn"]}}}}
    before = world.create("Renamed", template)["Outputs"]
    images["Properties"] = {"ImageTagMutability": "IMMUTABLE"}
    assert world.update("Renamed", template)["Outputs"] == before
    images["Properties"] = {"RepositoryName": "other"}
    assert world.update("Renamed", template)["Outputs"][0]["OutputValue"].endswith("repository/other")


def taker(output: str) -> dict[str, Any]:
    """A template whose queue is named after another stack's output, as CDK's weak references do it."""
    reference = {"Fn::GetStackOutput": {"StackName": "Giver", "OutputName": output, "Region": {"Ref": "AWS::Region"}}}
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Fn::Join": ["-", ["of", reference]]}}}
    return {"Resources": {"Q": queue}, "Outputs": {"Url": {"Value": {"Ref": "Q"}}}}


def test_an_output_crosses_stacks_and_a_missing_one_is_named(world: World) -> None:
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "crossed"}}
    world.create("Giver", {"Resources": {"B": bucket}, "Outputs": {"Name": {"Value": {"Ref": "B"}}}})
    assert world.create("Taker", taker("Name"))["Outputs"][0]["OutputValue"].endswith("/of-crossed")
    assert "Stack Giver has no output Nope" in world.create("Asker", taker("Nope"))["StackStatusReason"]


def test_a_bucket_stores_every_property_that_a_template_gives_it(world: World) -> None:
    rules = [{"Id": "old", "Status": "Enabled", "ExpirationInDays": 30, "Prefix": "capture/"}]
    properties = {
        "BucketName": "whole",
        "VersioningConfiguration": {"Status": "Enabled"},
        "LifecycleConfiguration": {"Rules": rules},
        "PublicAccessBlockConfiguration": dict.fromkeys(
            ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
        ),
        "NotificationConfiguration": {"EventBridgeConfiguration": {"EventBridgeEnabled": True}},
    }
    world.create("Whole", {"Resources": {"B": {"Type": "AWS::S3::Bucket", "Properties": properties}}})
    s3 = world.cloud.client("s3")
    assert s3.get_bucket_versioning(Bucket="whole")["Status"] == "Enabled"
    assert s3.get_public_access_block(Bucket="whole")["PublicAccessBlockConfiguration"]["BlockPublicPolicy"] is True
    lifecycle = s3.get_bucket_lifecycle_configuration(Bucket="whole")["Rules"][0]
    assert (lifecycle["ID"], lifecycle["Expiration"]["Days"], lifecycle["Filter"]) == (
        "old",
        30,
        {"Prefix": "capture/"},
    )


def test_an_image_build_hands_over_its_source_under_a_tag_that_the_source_decides(world: World) -> None:
    s3 = world.cloud.client("s3")
    s3.create_bucket(Bucket="assets")
    for name in "bc":
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("Dockerfile", f"FROM {name}")
        s3.put_object(Bucket="assets", Key=f"{name}.zip", Body=content.getvalue())
    build = {
        "Type": "Custom::CDKContainerImageBuild",
        "Properties": {"ServiceToken": "t", "codeBuildProjectName": "p", "sourceS3Url": "s3://assets/b.zip"},
    }
    template = {"Resources": {"Build": build}, "Outputs": {"Tag": {"Value": {"Fn::GetAtt": ["Build", "ImageTag"]}}}}
    other = json.loads(json.dumps(template).replace("b.zip", "c.zip"))
    made = [world.create(f"Images{n}", one)["Outputs"][0] for n, one in enumerate((template, template, other))]
    tags = [one["OutputValue"] for one in made]
    assert tags[0] == tags[1] != tags[2]
    assert (world.images[tags[0]] / "Dockerfile").read_text() == "FROM b"
    assert (world.images[tags[2]] / "Dockerfile").read_text() == "FROM c"


def test_an_image_build_without_its_source_fails_the_stack_with_the_reason(world: World) -> None:
    properties = {"ServiceToken": "t", "codeBuildProjectName": "p", "sourceS3Url": "s3://nowhere/b.zip"}
    build = {"Type": "Custom::CDKContainerImageBuild", "Properties": properties}
    stack = world.create("NoImage", {"Resources": {"Build": build}})
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "the image could not be built" in stack["StackStatusReason"]


def test_deleting_a_stack_ends_its_endpoint_and_forgets_its_resources(world: World) -> None:
    world.create("Gone", hosting("gone"))
    world.update("Gone", ModelPackageArn=package(world, "one.tar.gz"))
    world.cloud.client("cloudformation").delete_stack(StackName="Gone")
    sagemaker = world.cloud.client("sagemaker")
    assert "gone" in world.deleted
    assert refusal(sagemaker.describe_endpoint, EndpointName="gone")[0] == "ValidationException"
    assert [one for one in sagemaker.list_models()["Models"] if one["ModelName"].startswith("Gone-")] == []
    assert refusal(world.cloud.client("cloudformation").describe_stacks, StackName="Gone")[0] == "ValidationError"


def test_a_resource_to_be_kept_outlives_its_stack_s_update(world: World) -> None:
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "kept"}, "DeletionPolicy": "Retain"}
    topic = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "other"}}
    world.create("Keeper", {"Resources": {"B": bucket, "T": topic}})
    assert world.update("Keeper", {"Resources": {"T": topic}})["StackStatus"] == "UPDATE_COMPLETE"
    assert "kept" in [one["Name"] for one in world.cloud.client("s3").list_buckets()["Buckets"]]
