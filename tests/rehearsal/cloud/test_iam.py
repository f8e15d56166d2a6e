"""Roles against their policies, over HTTP: what a call needs, and how it is refused."""

import json
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest

from tests.rehearsal.cloud.world import ANYBODY, REGION_ARN, World, refusal


@pytest.fixture(scope="module")
def world(empty_world: World) -> World:
    s3, kms = empty_world.cloud.client("s3"), empty_world.cloud.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    s3.create_bucket(Bucket="data")
    by_default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    rules = [{"ApplyServerSideEncryptionByDefault": by_default}]
    s3.put_bucket_encryption(Bucket="data", ServerSideEncryptionConfiguration={"Rules": rules})
    s3.put_object(Bucket="data", Key="photos/a", Body=b"a")
    empty_world.role("reader", allow("s3:GetObject", "arn:aws:s3:::data/photos/*"), via_s3("kms:Decrypt", key))
    empty_world.role("keyless", allow(["s3:GetObject", "s3:PutObject"], "arn:aws:s3:::data/*"))
    return empty_world


def allow(action: Any, resource: Any, **condition: Any) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Action": action,
        "Resource": resource,
        **({"Condition": condition} if condition else {}),
    }


def via_s3(action: str, key: str) -> dict[str, Any]:
    return allow(action, key, StringEquals={"kms:ViaService": "s3.us-east-1.amazonaws.com"})


def of(world: World, service: str, role: str) -> Any:
    return world.cloud.client(service, f"arn:aws:iam::123456789012:role/{role}")


def test_a_role_may_what_its_policy_allows(world: World) -> None:
    assert of(world, "s3", "reader").get_object(Bucket="data", Key="photos/a")["Body"].read() == b"a"


def test_a_refusal_names_action_and_resource_and_is_remembered(world: World) -> None:
    code, text = refusal(of(world, "s3", "reader").get_object, Bucket="data", Key="datasets/a")
    assert code == "AccessDenied"
    assert "s3:GetObject on resource: arn:aws:s3:::data/datasets/a" in text
    assert "assumed-role/reader" in text
    assert "reader may not s3:GetObject on resource: arn:aws:s3:::data/datasets/a" in world.cloud.denied


def test_what_was_refused_did_not_happen(world: World) -> None:
    refusal(of(world, "s3", "reader").put_object, Bucket="data", Key="photos/b", Body=b"b")
    found = world.cloud.client("s3").list_objects_v2(Bucket="data", Prefix="photos/b")
    assert found["KeyCount"] == 0


def test_an_encrypted_object_needs_the_key_too(world: World) -> None:
    _, reading = refusal(of(world, "s3", "keyless").get_object, Bucket="data", Key="photos/a")
    _, writing = refusal(of(world, "s3", "keyless").put_object, Bucket="data", Key="x", Body=b"")
    assert "kms:Decrypt on resource: arn:aws:kms:" in reading
    assert "kms:GenerateDataKey on resource: arn:aws:kms:" in writing


def test_listing_is_an_action_on_the_bucket_with_its_prefix(world: World) -> None:
    world.role("lister", allow("s3:ListBucket", "arn:aws:s3:::data", StringLike={"s3:prefix": "photos/*"}))
    s3 = of(world, "s3", "lister")
    assert s3.list_objects_v2(Bucket="data", Prefix="photos/")["KeyCount"] == 1
    assert refusal(s3.list_objects_v2, Bucket="data", Prefix="runs/")[0] == "AccessDenied"
    assert refusal(s3.list_objects_v2, Bucket="data")[0] == "AccessDenied"


def test_the_bucket_s_own_deny_counts_and_loopback_stands_for_tls(world: World) -> None:
    s3 = world.cloud.client("s3")
    s3.create_bucket(Bucket="guarded")
    plain = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::guarded/*"}
    tls = {**plain, "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    world.role("writer", allow("s3:PutObject", "arn:aws:s3:::guarded/*"))
    s3.put_bucket_policy(Bucket="guarded", Policy=json.dumps({"Version": "2012-10-17", "Statement": [tls]}))
    of(world, "s3", "writer").put_object(Bucket="guarded", Key="a", Body=b"")
    s3.put_bucket_policy(Bucket="guarded", Policy=json.dumps({"Version": "2012-10-17", "Statement": [plain]}))
    assert refusal(of(world, "s3", "writer").put_object, Bucket="guarded", Key="a", Body=b"")[0] == "AccessDenied"


JOB = {
    "TrainingJobName": "job",
    "AlgorithmSpecification": {"TrainingImage": "local/x", "TrainingInputMode": "File"},
    "OutputDataConfig": {"S3OutputPath": "s3://data/runs"},
    "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    "EnableNetworkIsolation": True,
}


def test_a_job_is_checked_against_the_condition_keys_of_sagemaker(world: World) -> None:
    guards = {
        "Bool": {"sagemaker:NetworkIsolation": "true"},
        "ForAllValues:StringEquals": {"sagemaker:InstanceTypes": ["ml.m5.xlarge"]},
        "Null": {"sagemaker:InstanceTypes": "false"},
        "NumericLessThanEquals": {"sagemaker:MaxRuntimeInSeconds": 3600},
    }
    job_role = world.role("job")
    passing = allow("iam:PassRole", job_role, StringEquals={"iam:PassedToService": "sagemaker.amazonaws.com"})
    jobs = f"arn:aws:sagemaker:{REGION_ARN}:training-job/*"
    world.role("pipeline", allow("sagemaker:CreateTrainingJob", jobs, **guards), passing)
    create = of(world, "sagemaker", "pipeline").create_training_job
    request = {**JOB, "RoleArn": job_role}
    larger = {**JOB["ResourceConfig"], "InstanceType": "ml.m5.2xlarge"}  # type: ignore[dict-item]
    for change in (
        {"EnableNetworkIsolation": False},
        {"ResourceConfig": larger},
        {"StoppingCondition": {"MaxRuntimeInSeconds": 3601}},
    ):
        assert "sagemaker:CreateTrainingJob" in refusal(create, **{**request, **change})[1]
    assert "iam:PassRole on resource: " in refusal(create, **{**request, "RoleArn": world.role("other")})[1]
    assert create(**request)["TrainingJobArn"].endswith(":training-job/job")


def test_a_function_s_role_may_invoke_its_endpoint_and_no_other(world: World) -> None:
    world.role("classify", allow("sagemaker:InvokeEndpoint", f"arn:aws:sagemaker:{REGION_ARN}:endpoint/kennel-dev"))
    runtime = of(world, "sagemaker-runtime", "classify")
    assert refusal(runtime.invoke_endpoint, EndpointName="kennel-dev", Body=b"")[0] == "ValidationError"
    code, text = refusal(runtime.invoke_endpoint, EndpointName="kennel-prod", Body=b"")
    assert (code, "endpoint/kennel-prod" in text) == ("AccessDeniedException", True)


def test_a_role_without_policies_may_ask_who_it_is_and_nothing_else(world: World) -> None:
    world.role("nobody")
    assert "assumed-role/nobody" in of(world, "sts", "nobody").get_caller_identity()["Arn"]
    for service, operation in (("ec2", "describe_vpcs"), ("iam", "list_roles"), ("lambda", "list_functions")):
        assert refusal(getattr(of(world, service, "nobody"), operation))[0].startswith("AccessDenied")


@pytest.mark.parametrize("service", ["s3", "sagemaker", "cloudformation"])
def test_a_key_that_nobody_gave_out_opens_nothing(world: World, service: str) -> None:
    stranger = boto3.client(
        service,
        endpoint_url=world.cloud.url,
        region_name="us-east-1",
        aws_access_key_id="AKIASTRANGER",
        aws_secret_access_key="x",
    )
    operation = {"s3": "list_buckets", "sagemaker": "list_models", "cloudformation": "list_stacks"}[service]
    assert refusal(getattr(stranger, operation))[0] in ("InvalidClientTokenId", "InvalidAccessKeyId")


def test_a_role_s_key_without_its_token_opens_nothing(world: World, tmp_path: Path) -> None:
    environment = world.cloud.environment("arn:aws:iam::123456789012:role/reader")
    client = boto3.client(
        "s3",
        endpoint_url=world.cloud.url,
        region_name="us-east-1",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    assert refusal(client.get_object, Bucket="data", Key="photos/a")[0] == "InvalidAccessKeyId"


def test_an_action_of_a_stack_s_role_counts_as_unused_until_a_call_needs_it(world: World) -> None:
    statements = [
        allow(["s3:GetObject", "s3:PutObject"], "arn:aws:s3:::data/photos/*"),
        allow("s3:GetObject", "arn:aws:s3:::data/runs/*"),
        via_s3("kms:Decrypt", "*"),
    ]
    inline = {"PolicyName": "only", "PolicyDocument": {"Version": "2012-10-17", "Statement": statements}}
    role = {"AssumeRolePolicyDocument": {"Version": "2012-10-17", **ANYBODY}, "Policies": [inline]}
    resources = {"JobRole0123ABCD": {"Type": "AWS::IAM::Role", "Properties": role}}
    outputs = {"Arn": {"Value": {"Fn::GetAtt": ["JobRole0123ABCD", "Arn"]}}}
    stack = world.create("Kennel-Dev-Pipeline", {"Resources": resources, "Outputs": outputs})

    def unused() -> list[str]:
        assert {one.role for one in world.cloud.unused} == {"Pipeline/JobRole"}
        return [one.action for one in world.cloud.unused]

    assert unused() == ["kms:Decrypt", "s3:GetObject", "s3:PutObject"]
    s3 = world.cloud.client("s3", stack["Outputs"][0]["OutputValue"])
    s3.get_object(Bucket="data", Key="photos/a")
    assert unused() == ["s3:GetObject", "s3:PutObject"]  # the other statement's, for runs/*
    refusal(s3.put_object, Bucket="data", Key="elsewhere", Body=b"")
    assert unused() == ["s3:GetObject", "s3:PutObject"]
