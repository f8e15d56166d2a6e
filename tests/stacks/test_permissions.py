"""Who may do what: no more than the work needs, statement by statement."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stacks.synthesized import Json, Synthesized, text

# Actions for which AWS offers no resource; docs/security.md gives each its reason.
WITHOUT_RESOURCE = {
    "cloudwatch:PutMetricData",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "ecr:GetAuthorizationToken",
    "sagemaker:ListModelPackages",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}
# What AWS's pages about SageMaker's roles ask for besides the key's use through S3.
DIRECT = ["kms:CreateGrant", "kms:DescribeKey", "kms:Encrypt"]
# Made by libraries for the time of a deployment only.
AWS_MANAGED = {"AWSLambdaBasicExecutionRole", "AmazonElasticContainerRegistryPublicReadOnly"}


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def role_of(synth: Synthesized, stage: str, name: str) -> list[Json]:
    """The statements of the Pipeline stack's role whose logical id begins with `name`."""
    return [statement for role, statement in synth.statements(stage, "Pipeline") if role.startswith(name)]


def allowing(statements: list[Json], action: str) -> Json:
    (statement,) = [each for each in statements if action in listed(each["Action"])]
    return statement


def test_only_actions_without_resources_are_allowed_on_all(synth: Synthesized) -> None:
    assert {action for stage in ("Dev", "Prod") for action in _allowed_on_all(synth, stage)} == WITHOUT_RESOURCE


def test_the_security_page_names_exactly_those_actions() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "security.md").read_text()
    rows = re.findall(r"^\| `([\w:]+)` \|.*\|$", page, flags=re.MULTILINE)
    assert sorted(rows) == sorted(WITHOUT_RESOURCE)


def _allowed_on_all(synth: Synthesized, stage: str) -> Iterator[str]:
    for room in synth.rooms(stage):
        for _, statement in synth.statements(stage, room):
            if statement["Effect"] == "Allow" and "*" in listed(statement["Resource"]):
                yield from listed(statement["Action"])


def test_no_action_is_a_wildcard_but_in_cdks_own_grant_for_reading_assets(synth: Synthesized, stage: str) -> None:
    for room in synth.rooms(stage):
        for role, statement in synth.statements(stage, room):
            wild = {action for action in listed(statement["Action"]) if "*" in action}
            if not role.startswith("ContainerImageBuild"):
                assert wild == set(), (room, role)
            assert wild <= {"s3:GetObject*", "s3:GetBucket*", "s3:List*"}, (room, role)


def test_no_role_has_a_managed_policy_but_the_two_of_the_image_build(synth: Synthesized, stage: str) -> None:
    for room in synth.rooms(stage):
        for id_, role in synth.resources(stage, room, "AWS::IAM::Role").items():
            for arn in role["Properties"].get("ManagedPolicyArns", []):
                name = (arn["Fn::Sub"] if isinstance(arn, dict) and "Fn::Sub" in arn else text(arn)).rsplit("/", 1)[-1]
                assert name in AWS_MANAGED, (room, id_)


def test_sagemaker_takes_the_roles_on_for_this_account_only(synth: Synthesized, stage: str) -> None:
    trusted = []
    for id_, role in synth.resources(stage, "Pipeline", "AWS::IAM::Role").items():
        (statement,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}, id_
        trusted.append(statement["Principal"]["Service"])
    assert sorted(trusted) == ["events.amazonaws.com", "sagemaker.amazonaws.com", "sagemaker.amazonaws.com"]


def test_the_job_role_reads_data_sets_and_writes_only_what_jobs_make(synth: Synthesized, stage: str) -> None:
    statements = role_of(synth, stage, "JobRole")

    def keys(action: str) -> set[str]:
        return {text(arn).split(">/", 1)[-1] for arn in listed(allowing(statements, action)["Resource"])}

    assert keys("s3:GetObject") == {"datasets/*", "prepared/*", "runs/*"}
    assert keys("s3:PutObject") == {"prepared/*", "runs/*"}
    assert allowing(statements, "s3:DeleteObject")["Resource"] != "*"
    assert text(allowing(statements, "s3:DeleteObject")["Resource"]).endswith(">/runs/*/checkpoints/*")


def test_the_pipeline_reads_what_its_conditions_ask_and_what_it_registers(synth: Synthesized, stage: str) -> None:
    arns = allowing(role_of(synth, stage, "PipelineRole"), "s3:GetObject")["Resource"]
    assert [text(arn).split(">/", 1)[-1] for arn in arns] == ["prepared/*/report/*", "runs/*"]


@pytest.mark.parametrize("role", ["JobRole", "PipelineRole"])
def test_the_key_serves_through_s3_and_for_volumes_only(synth: Synthesized, stage: str, role: str) -> None:
    statements = role_of(synth, stage, role)
    through = allowing(statements, "kms:Decrypt")["Condition"]["StringEquals"]["kms:ViaService"]
    assert text(through) == "s3.<AWS::Region>.amazonaws.com"
    grants = [each for each in statements if "kms:CreateGrant" in listed(each["Action"])]
    assert [each["Action"] for each in grants] == [DIRECT] * (role == "JobRole")
    # No document says that SageMaker's grants meet kms:GrantIsForAWSResource.
    assert [each for each in grants if "Condition" in each] == []


def test_the_pipeline_starts_only_isolated_encrypted_bounded_jobs_of_allowed_types(
    synth: Synthesized, stage: str
) -> None:
    statements = role_of(synth, stage, "PipelineRole")
    condition = allowing(statements, "sagemaker:CreateTrainingJob")["Condition"]
    assert condition["Bool"] == {
        "sagemaker:NetworkIsolation": "true",
        "sagemaker:InterContainerTrafficEncryption": "true",
    }
    listed_values = condition["ForAllValues:StringEquals"]
    assert listed_values["sagemaker:InstanceTypes"] == [
        "ml.c5.4xlarge",
        "ml.m5.2xlarge",
        "ml.m5.4xlarge",
        "ml.m5.xlarge",
    ]
    # ForAllValues holds for a request without the key; only together with Null does it bind.
    assert condition["Null"] == dict.fromkeys(listed_values, "false")
    assert ("sagemaker:VpcSubnets" in listed_values) == (stage == "Prod")
    assert set(condition["ArnEquals"]) == {"sagemaker:OutputKmsKey", "sagemaker:VolumeKmsKey"}
    assert condition["NumericLessThanEquals"] == {"sagemaker:MaxRuntimeInSeconds": 24 * 3600}
    for kind in ("Processing", "HyperParameterTuning"):
        assert allowing(statements, f"sagemaker:Create{kind}Job")["Condition"] == condition


def test_the_pipeline_passes_one_role_to_one_service(synth: Synthesized, stage: str) -> None:
    statement = allowing(role_of(synth, stage, "PipelineRole"), "iam:PassRole")
    assert text(statement["Resource"]).startswith("<JobRole")
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_the_pipeline_registers_models_in_one_group(synth: Synthesized, stage: str) -> None:
    arns = allowing(role_of(synth, stage, "PipelineRole"), "sagemaker:CreateModelPackage")["Resource"]
    name = f"kennel-{stage.lower()}"
    assert [text(arn).split(">:")[-1] for arn in arns] == [f"model-package-group/{name}", f"model-package/{name}/*"]


def test_eventbridge_starts_this_pipeline_and_nothing_else(synth: Synthesized, stage: str) -> None:
    (statement,) = role_of(synth, stage, "StartRole")
    assert statement["Action"] == "sagemaker:StartPipelineExecution"
    assert text(statement["Resource"]).endswith(":pipeline/<Pipeline>")


def test_the_rule_matches_manifests_of_data_sets_and_passes_their_key_on(synth: Synthesized, stage: str) -> None:
    rule = synth.only(stage, "Pipeline", "AWS::Events::Rule")
    detail = rule["EventPattern"]["detail"]
    assert rule["EventPattern"]["source"] == ["aws.s3"]
    assert rule["EventPattern"]["detail-type"] == ["Object Created"]
    assert [text(name).split(".")[0] for name in detail["bucket"]["name"]] == [f"<Kennel-{stage}-Data"]
    assert detail["object"] == {"key": [{"wildcard": "datasets/*.manifest"}]}
    (target,) = rule["Targets"]
    (queue,) = synth.resources(stage, "Pipeline", "AWS::SQS::Queue")
    assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": [queue, "Arn"]}}
    parameters = target["SageMakerPipelineParameters"]["PipelineParameterList"]
    assert parameters == [{"Name": "DataManifest", "Value": "$.detail.object.key"}]
    assert text(target["Arn"]).endswith(":pipeline/<Pipeline>")
    assert text(target["RoleArn"]).startswith("<StartRole")


def test_an_upload_that_started_nothing_is_kept_encrypted_and_only_the_rule_may_put_it_there(
    synth: Synthesized, stage: str
) -> None:
    (rule,) = synth.resources(stage, "Pipeline", "AWS::Events::Rule")
    queue = synth.only(stage, "Pipeline", "AWS::SQS::Queue")
    assert (queue["SqsManagedSseEnabled"], queue["MessageRetentionPeriod"]) == (True, 14 * 24 * 3600)
    deny, allow = synth.only(stage, "Pipeline", "AWS::SQS::QueuePolicy")["PolicyDocument"]["Statement"]
    assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    assert allow["Condition"] == {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": [rule, "Arn"]}}}
