"""The endpoint: absent until a model is released, replaced in halves, taken back by alarms in the right unit."""

import re
from dataclasses import replace
from typing import Any, cast

import aws_cdk as cdk
import pytest
from aws_cdk import assertions

from stacks.config import DEV
from stacks.monitoring import EndpointMetrics, cores
from stacks.stage import KennelStage
from tests.stacks.synthesized import Synthesized, text

SERVING = ("AWS::SageMaker::", "AWS::ApplicationAutoScaling::", "AWS::CloudWatch::")


@pytest.fixture
def hosting(synth: Synthesized, stage: str) -> dict[str, Any]:
    return synth.template(stage, "Hosting")


def test_the_only_parameter_is_the_model_package_so_a_release_needs_no_other_permission(
    hosting: dict[str, Any],
) -> None:
    # BootstrapVersion would be an SSM parameter, and whoever updates the stack would have to be allowed to read it.
    assert set(hosting["Parameters"]) == {"ModelPackageArn"}
    assert hosting["Parameters"]["ModelPackageArn"]["Default"] == ""


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        ("", True),
        ("arn:aws:sagemaker:eu-west-1:123456789012:model-package/{name}/17", True),
        ("arn:aws-cn:sagemaker:cn-north-1:123456789012:model-package/{name}/1", True),
        ("arn:aws:sagemaker:eu-west-1:123456789012:model-package/another/17", False),
        ("arn:aws:sagemaker:eu-west-1:123456789012:model/{name}", False),
        ("{name}/17", False),
    ],
)
def test_the_parameter_takes_only_packages_of_the_stages_own_group(
    hosting: dict[str, Any], stage: str, value: str, accepted: bool
) -> None:
    pattern = hosting["Parameters"]["ModelPackageArn"]["AllowedPattern"]
    value = value.format(name=f"kennel-{stage.lower()}")
    assert (re.fullmatch(pattern, value) is not None) is accepted


def test_whatever_serves_exists_only_with_a_model_and_everything_else_always(hosting: dict[str, Any]) -> None:
    empty = {"Fn::Equals": [{"Ref": "ModelPackageArn"}, ""]}
    assert hosting["Conditions"] == {"HasModel": {"Fn::Not": [empty]}}
    for id_, resource in hosting["Resources"].items():
        expected = "HasModel" if resource["Type"].startswith(SERVING) else None
        assert resource.get("Condition") == expected, id_


def test_the_model_comes_from_the_package_isolated_and_without_a_name(synth: Synthesized, stage: str) -> None:
    model = synth.only(stage, "Hosting", "AWS::SageMaker::Model")
    package = {"Ref": "ModelPackageArn"}
    assert model["PrimaryContainer"]["ModelPackageName"] == package
    assert model["PrimaryContainer"]["Environment"] == {
        "MODEL_PACKAGE_ARN": package,
        "ENDPOINT_NAME": f"kennel-{stage.lower()}",
        "RUNTIME": "openvino",
        "PRECISION": "auto",
    }
    assert model["EnableNetworkIsolation"] is True
    assert "ModelName" not in model


def test_only_prod_puts_the_model_into_the_vpc(synth: Synthesized) -> None:
    assert "VpcConfig" not in synth.only("Dev", "Hosting", "AWS::SageMaker::Model")
    vpc = synth.only("Prod", "Hosting", "AWS::SageMaker::Model")["VpcConfig"]
    assert len(vpc["Subnets"]) == 2
    assert len(vpc["SecurityGroupIds"]) == 1


def test_the_configuration_is_encrypted_captures_and_has_no_name(synth: Synthesized, stage: str) -> None:
    config = synth.only(stage, "Hosting", "AWS::SageMaker::EndpointConfig")
    (variant,) = config["ProductionVariants"]
    capture = config["DataCaptureConfig"]
    assert "EndpointConfigName" not in config
    assert variant["VariantName"] == "AllTraffic"
    assert text(config["KmsKeyId"]) == text(capture["KmsKeyId"]) != ""
    assert text(capture["DestinationS3Uri"]).endswith("/capture")
    assert capture["InitialSamplingPercentage"] == {"Dev": 100, "Prod": 10}[stage]
    assert [option["CaptureMode"] for option in capture["CaptureOptions"]] == ["Input", "Output"]


def test_the_endpoint_has_a_literal_name_and_keeps_its_size_when_it_changes(synth: Synthesized, stage: str) -> None:
    endpoint = synth.only(stage, "Hosting", "AWS::SageMaker::Endpoint")
    assert endpoint["EndpointName"] == f"kennel-{stage.lower()}"
    assert endpoint["RetainAllVariantProperties"] is True
    assert "ExcludeRetainedVariantProperties" not in endpoint


def test_prod_tries_a_new_model_on_half_its_capacity_and_dev_moves_at_once(synth: Synthesized) -> None:
    assert "DeploymentConfig" not in synth.only("Dev", "Hosting", "AWS::SageMaker::Endpoint")
    config = synth.only("Prod", "Hosting", "AWS::SageMaker::Endpoint")["DeploymentConfig"]
    policy = config["BlueGreenUpdatePolicy"]
    assert policy["TrafficRoutingConfiguration"] == {
        "Type": "CANARY",
        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50},
        "WaitIntervalInSeconds": 600,
    }
    waiting = policy["TrafficRoutingConfiguration"]["WaitIntervalInSeconds"] + policy["TerminationWaitInSeconds"]
    assert waiting < policy["MaximumExecutionTimeoutInSeconds"] <= 28_800
    alarms = synth.resources("Prod", "Hosting", "AWS::CloudWatch::Alarm")
    named = [alarm["AlarmName"]["Ref"] for alarm in config["AutoRollbackConfiguration"]["Alarms"]]
    assert sorted(named) == sorted(alarms)


def test_rollback_alarms_compare_microseconds_with_microseconds(synth: Synthesized) -> None:
    alarms = {
        alarm["Properties"]["MetricName"]: alarm["Properties"]
        for alarm in synth.resources("Prod", "Hosting", "AWS::CloudWatch::Alarm").values()
    }
    assert set(alarms) == {"ModelLatency", "Invocation5XXErrors"}
    latency = alarms["ModelLatency"]
    assert (latency["Threshold"], latency["ExtendedStatistic"]) == (3_000_000, "p95")  # 3 s
    assert (alarms["Invocation5XXErrors"]["Threshold"], alarms["Invocation5XXErrors"]["Statistic"]) == (5, "Sum")


def test_rollback_alarms_name_the_endpoint_literally_so_nothing_is_circular(synth: Synthesized) -> None:
    for alarm in synth.resources("Prod", "Hosting", "AWS::CloudWatch::Alarm").values():
        dimensions = {each["Name"]: each["Value"] for each in alarm["Properties"]["Dimensions"]}
        assert dimensions == {"EndpointName": "kennel-prod", "VariantName": "AllTraffic"}
        assert alarm["Properties"]["TreatMissingData"] == "notBreaching"
        assert alarm["Properties"]["Period"] == 60


def test_the_endpoints_role_is_for_sagemaker_of_this_account(synth: Synthesized, stage: str) -> None:
    (statement,) = synth.only(stage, "Hosting", "AWS::IAM::Role")["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_the_endpoints_role_reads_runs_and_writes_captures_and_touches_no_other_object(
    synth: Synthesized, stage: str
) -> None:
    objects = {
        statement["Action"]: text(statement["Resource"]).rsplit(">", 1)[-1]
        for _, statement in synth.statements(stage, "Hosting")
        if str(statement["Action"]).startswith("s3:")
    }
    assert objects == {"s3:GetObject": "/runs/*", "s3:PutObject": "/capture/*"}


def test_the_endpoints_role_uses_the_key_through_s3_or_by_grant_only(synth: Synthesized, stage: str) -> None:
    conditions = {
        str(statement["Action"]): set(str(key) for test in statement.get("Condition", {}).values() for key in test)
        for _, statement in synth.statements(stage, "Hosting")
        if "kms:" in str(statement["Action"])
    }
    assert conditions == {
        "['kms:Decrypt', 'kms:GenerateDataKey']": {"kms:ViaService"},
        "['kms:CreateGrant', 'kms:DescribeKey', 'kms:Encrypt']": set(),
    }


def test_the_endpoints_log_group_has_a_retention_and_leaves_with_the_stack(synth: Synthesized, stage: str) -> None:
    ((_, group),) = synth.resources(stage, "Hosting", "AWS::Logs::LogGroup").items()
    assert group["Properties"]["LogGroupName"] == f"/aws/sagemaker/Endpoints/kennel-{stage.lower()}"
    assert group["Properties"]["RetentionInDays"] == {"Dev": 7, "Prod": 365}[stage]
    assert group["DeletionPolicy"] == "Delete"


@pytest.mark.parametrize(
    ("type_", "expected"),
    [("ml.m5.large", 2), ("ml.t2.medium", 2), ("ml.m5.xlarge", 4), ("ml.c7g.2xlarge", 8), ("ml.g5.48xlarge", 192)],
)
def test_cores_follow_from_the_size_of_the_instance_type(type_: str, expected: int) -> None:
    assert cores(type_) == expected


def test_thresholds_are_given_in_the_metrics_own_units() -> None:
    metrics = EndpointMetrics(endpoint_name="any", variant_name="any", instance_type="ml.m5.xlarge")
    assert metrics.latency_threshold(milliseconds=250) == 250_000  # microseconds
    assert metrics.cpu_threshold(percent=85) == 340  # percent of one of four cores


def test_only_the_role_in_the_vpc_makes_interfaces_and_only_in_its_subnets(synth: Synthesized) -> None:
    made = {
        stage: [
            text(resource)
            for _, statement in synth.statements(stage, "Hosting")
            if statement["Action"] == "ec2:CreateNetworkInterface"
            for resource in statement["Resource"]
        ]
        for stage in ("Dev", "Prod")
    }
    assert made["Dev"] == []
    assert len(made["Prod"]) == 4  # interfaces, one group, two subnets
    assert [resource for resource in made["Prod"] if resource.endswith("*")] == [
        "arn:<AWS::Partition>:ec2:<AWS::Region>:<AWS::AccountId>:network-interface/*"
    ]


def served(**hosting: Any) -> assertions.Template:
    app = cdk.App()
    stage = KennelStage(app, "Dev", settings=replace(DEV, hosting=replace(DEV.hosting, **hosting)))
    return assertions.Template.from_stack(cast(cdk.Stack, stage.node.find_child("Hosting")))


def test_threads_reach_the_server_only_where_they_are_set() -> None:
    variables = assertions.Match.object_like({"Environment": assertions.Match.object_like({"THREADS": "3"})})
    served(threads=3).has_resource_properties("AWS::SageMaker::Model", {"PrimaryContainer": variables})


def test_a_gpu_endpoint_runs_torch_on_a_machine_image_with_its_driver_and_without_key_or_size() -> None:
    template = served(instance_type="ml.g5.xlarge", runtime="torch")
    (config,) = template.find_resources("AWS::SageMaker::EndpointConfig").values()
    (variant,) = config["Properties"]["ProductionVariants"]
    assert variant["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"
    assert "VolumeSizeInGB" not in variant
    assert "KmsKeyId" not in config["Properties"]
    (model,) = template.find_resources("AWS::SageMaker::Model").values()
    assert model["Properties"]["PrimaryContainer"]["Environment"]["RUNTIME"] == "torch"


def test_a_processor_needs_no_machine_image_of_its_own(synth: Synthesized, stage: str) -> None:
    (variant,) = synth.only(stage, "Hosting", "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert "InferenceAmiVersion" not in variant
