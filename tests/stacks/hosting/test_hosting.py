"""The endpoint: absent until a model is released, replaced in halves, taken back by alarms in the right unit."""

import ast
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


def test_the_only_parameters_are_those_of_a_release_so_it_needs_no_other_permission(
    hosting: dict[str, Any],
) -> None:
    # BootstrapVersion would be an SSM parameter, and whoever updates the stack would have to be allowed to read it.
    assert {name: one["Default"] for name, one in hosting["Parameters"].items()} == {
        "ModelPackageArn": "",
        "ApprovedAt": "",
    }


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


@pytest.mark.parametrize(
    ("value", "accepted"),
    [("", True), ("2026-11-30T16:30:00.000Z", True), ("2026-11-30T16:30:00Z", False), ("yesterday", False)],
)
def test_the_time_of_the_approval_is_one_that_can_be_compared_as_text(
    hosting: dict[str, Any], value: str, accepted: bool
) -> None:
    assert (re.fullmatch(hosting["Parameters"]["ApprovedAt"]["AllowedPattern"], value) is not None) is accepted


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
        "APPROVED_AT": {"Ref": "ApprovedAt"},  # so that an approval given anew is another model
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


def test_a_number_of_instances_that_nothing_scales_is_the_one_that_is_deployed() -> None:
    template = served(min_instances=2, max_instances=2)
    (endpoint,) = template.find_resources("AWS::SageMaker::Endpoint").values()
    assert "RetainAllVariantProperties" not in endpoint["Properties"]


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


def rollback_alarms(synth: Synthesized) -> dict[str, dict[str, Any]]:
    """By the beginning of the logical id: RollbackErrors, RollbackLatency."""
    found = synth.resources("Prod", "Hosting", "AWS::CloudWatch::Alarm")
    return {id_[:-8]: alarm["Properties"] for id_, alarm in found.items()}


def series(alarm: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The metrics of an alarm on an expression, by their ids."""
    return {one["Id"]: one["MetricStat"] for one in alarm["Metrics"] if "MetricStat" in one}


def expression(alarm: dict[str, Any]) -> str:
    (found,) = [one["Expression"] for one in alarm["Metrics"] if "Expression" in one]
    return str(found)


def value(alarm: dict[str, Any], **samples: float | None) -> float | None:
    """What the alarm's expression is for one minute; None: there is no sample, or no value."""
    names = {"FILL": lambda sample, other: other if sample is None else sample, **samples}
    tree = ast.parse(expression(alarm), mode="eval").body
    assert isinstance(tree, ast.Call)
    assert ast.unparse(tree.func) == "IF"
    condition, then, other = (ast.unparse(each) for each in tree.args)
    try:
        found: float | None = eval(then if eval(condition, names) else other, names)
    except TypeError:  # arithmetic with a missing sample
        return None
    return found


def test_rollback_alarms_watch_the_new_fleet_alone(synth: Synthesized) -> None:
    ((config, _),) = synth.resources("Prod", "Hosting", "AWS::SageMaker::EndpointConfig").items()
    alarms = rollback_alarms(synth)
    assert set(alarms) == {"RollbackErrors", "RollbackLatency", "RollbackAnswers"}
    assert {alarm["TreatMissingData"] for alarm in alarms.values()} == {"notBreaching"}
    for alarm in (alarms["RollbackErrors"], alarms["RollbackLatency"]):
        for one in series(alarm).values():
            assert {each["Name"]: each["Value"] for each in one["Metric"]["Dimensions"]} == {
                "EndpointName": "kennel-prod",  # literally, so that nothing is circular
                "VariantName": "AllTraffic",
                "EndpointConfigName": {"Fn::GetAtt": [config, "EndpointConfigName"]},
            }
            assert one["Period"] == 60


def test_the_alarm_on_answers_takes_those_of_the_released_package_to_the_probes(synth: Synthesized) -> None:
    alarm = rollback_alarms(synth)["RollbackAnswers"]
    assert {id_: one["Stat"] for id_, one in series(alarm).items()} == {"answers": "SampleCount", "wrong": "Average"}
    for one in series(alarm).values():
        assert (one["Metric"]["Namespace"], one["Metric"]["MetricName"]) == ("Kennel/Release", "WrongAnswers")
        assert one["Metric"]["Dimensions"] == [{"Name": "ModelPackage", "Value": {"Ref": "ModelPackageArn"}}]
    assert (alarm["Threshold"], alarm["EvaluationPeriods"]) == (10, 1)  # percent, minutes
    assert value(alarm, answers=30, wrong=50.0) == 50.0
    assert value(alarm, answers=9, wrong=100.0) == 0
    assert value(alarm, answers=None, wrong=None) is None


def test_the_error_alarm_takes_what_the_model_failed_and_not_what_callers_or_overload_did(synth: Synthesized) -> None:
    alarm = rollback_alarms(synth)["RollbackErrors"]
    assert {id_: (one["Metric"]["MetricName"], one["Stat"]) for id_, one in series(alarm).items()} == {
        "asked": ("Invocations", "Sum"),
        "failed": ("InvocationModelErrors", "Sum"),
        "refused": ("Invocation4XXErrors", "Sum"),
    }
    assert (alarm["Threshold"], alarm["EvaluationPeriods"]) == (5, 1)  # percent, minutes
    assert value(alarm, asked=100, failed=60, refused=60) == 0
    assert value(alarm, asked=100, failed=58, refused=50) == 16
    assert value(alarm, asked=100, failed=8, refused=None) == 8


def test_a_few_errors_and_minutes_without_requests_are_no_reason_to_roll_back(synth: Synthesized) -> None:
    alarm = rollback_alarms(synth)["RollbackErrors"]
    assert value(alarm, asked=2, failed=2, refused=0) == 0
    assert value(alarm, asked=3, failed=3, refused=0) == 100
    assert value(alarm, asked=50, failed=50, refused=50) == 0
    assert value(alarm, asked=None, failed=None, refused=None) is None


def test_the_latency_alarm_compares_microseconds_from_ten_requests_on(synth: Synthesized) -> None:
    alarm = rollback_alarms(synth)["RollbackLatency"]
    assert {id_: (one["Metric"]["MetricName"], one["Stat"]) for id_, one in series(alarm).items()} == {
        "asked": ("Invocations", "Sum"),
        "p95": ("ModelLatency", "p95"),
    }
    assert (alarm["Threshold"], alarm["EvaluationPeriods"]) == (3_000_000, 2)  # 3 s for two minutes
    assert value(alarm, asked=10, p95=4e6) == 4e6
    assert value(alarm, asked=9, p95=4e6) == 0
    assert value(alarm, asked=None, p95=None) is None


def test_sagemaker_and_the_release_may_look_at_the_rollback_alarms(synth: Synthesized) -> None:
    named = "arn:<AWS::Partition>:cloudwatch:<AWS::Region>:<AWS::AccountId>:alarm:Kennel-Prod-Hosting-Rollback*"
    for room in ("Hosting", "Release"):
        found = [one for _, one in synth.statements("Prod", room) if one["Action"] == "cloudwatch:DescribeAlarms"]
        assert [text(one["Resource"]) for one in found] == [named], room
        assert not [one for _, one in synth.statements("Dev", room) if "DescribeAlarms" in str(one["Action"])]
    assert all(id_.startswith("Rollback") for id_ in rollback_alarms(synth))  # which their names begin with


def test_the_release_learns_the_rollback_alarms_from_an_output_that_comes_with_the_model(synth: Synthesized) -> None:
    output = synth.template("Prod", "Hosting")["Outputs"]["RollbackAlarmArns"]
    alarms = synth.resources("Prod", "Hosting", "AWS::CloudWatch::Alarm")
    assert output["Condition"] == "HasModel"
    assert sorted(text(output["Value"]).split(",")) == sorted(f"<{id_}.Arn>" for id_ in alarms)
    assert "RollbackAlarmArns" not in synth.template("Dev", "Hosting")["Outputs"]


def test_the_endpoints_role_cannot_bring_back_the_log_group_that_left_with_the_stack(
    synth: Synthesized, stage: str
) -> None:
    actions = [action for _, one in synth.statements(stage, "Hosting") for action in one["Action"]]
    assert "logs:PutLogEvents" in actions
    assert "logs:CreateLogGroup" not in actions


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
