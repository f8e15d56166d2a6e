"""What is heard of releases, and what the function that hears it may do."""

import pytest

from tests.stacks.synthesized import Json, Synthesized, text
from tests.stacks.test_classify import files_of
from tests.stacks.test_permissions import listed


def rules(synth: Synthesized, stage: str) -> dict[str, Json]:
    """Construct id -> the properties of the observer's rules."""
    found = synth.resources(stage, "Operations", "AWS::Events::Rule")
    own = {id_: rule["Properties"] for id_, rule in found.items() if id_.startswith("Observer")}
    return {id_.removeprefix("Observer")[:-8]: properties for id_, properties in own.items()}


def allowed(synth: Synthesized, stage: str) -> dict[str, Json]:
    """Action -> the observer's statement that allows it."""
    of_role = [each for role, each in synth.statements(stage, "Operations") if role.startswith("ObserverObserve")]
    return {action: each for each in of_role for action in listed(each["Action"]) if not action.startswith("kms:")}


def test_approvals_of_the_group_are_heard_and_so_are_rejections(synth: Synthesized, stage: str) -> None:
    assert rules(synth, stage)["Approvals"]["EventPattern"] == {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {
            "ModelPackageGroupName": [f"kennel-{stage.lower()}"],
            "ModelApprovalStatus": ["Approved", "Rejected"],
        },
    }


def test_the_ends_of_the_hosting_stacks_updates_are_heard_and_of_no_stack_whose_name_begins_alike(
    synth: Synthesized, stage: str
) -> None:
    detail = rules(synth, stage)["Updates"]["EventPattern"]["detail"]
    (prefix,) = [text(one["prefix"]) for one in detail["stack-id"]]
    assert prefix.endswith(f"{stage}-Hosting/")
    statuses = {"UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED"}
    assert statuses <= set(detail["status-details"]["status"])
    assert "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS" not in detail["status-details"]["status"]


def test_a_rollback_alarm_that_rings_is_heard_by_its_name(synth: Synthesized, stage: str) -> None:
    detail = rules(synth, stage)["RollbackAlarms"]["EventPattern"]["detail"]
    (name,) = detail["alarmName"]
    assert name["prefix"].endswith(f"{stage}-Hosting-Rollback")
    assert detail["state"] == {"value": ["ALARM"]}


def test_every_rule_calls_the_function(synth: Synthesized, stage: str) -> None:
    (function,) = synth.resources(stage, "Operations", "AWS::Lambda::Function")
    for rule in rules(synth, stage).values():
        assert [target["Arn"] for target in rule["Targets"]] == [{"Fn::GetAtt": [function, "Arn"]}]
    assert len(synth.resources(stage, "Operations", "AWS::Lambda::Permission")) == len(rules(synth, stage)) == 4


def test_the_function_is_the_package_and_nothing_else(synth: Synthesized, stage: str) -> None:
    function = synth.only(stage, "Operations", "AWS::Lambda::Function")
    assert function["Handler"] == "observe.handler.handler"
    assert {file.split("/")[0] for file in files_of(synth, function)} == {"observe"}
    group = text(function["Environment"]["Variables"]["MODEL_PACKAGES"])
    assert group.endswith(f":model-package/kennel-{stage.lower()}")


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("cloudformation:DescribeStackEvents", "-Hosting/*"),
        ("cloudwatch:DescribeAlarmHistory", "-Hosting-Rollback*"),
        ("s3:PutObject", "/releases/*"),
        ("sns:Publish", "<AlarmsTopic"),
    ],
)
def test_the_role_may_do_what_it_needs_to_what_it_concerns(
    synth: Synthesized, stage: str, action: str, resource: str
) -> None:
    assert resource in text(allowed(synth, stage)[action]["Resource"])


def test_the_role_reads_no_object_and_changes_no_stack_or_endpoint(synth: Synthesized, stage: str) -> None:
    actions = set(allowed(synth, stage))
    assert {action for action in actions if action.startswith(("s3:", "cloudformation:", "sagemaker:"))} == {
        "s3:ListBucket",
        "s3:PutObject",
        "cloudformation:DescribeStackEvents",
        "cloudformation:DescribeStackResources",
        "cloudformation:DescribeStacks",
        "sagemaker:DescribeEndpoint",
        "sagemaker:DescribeModelPackage",
        "sagemaker:UpdateModelPackage",
    }
    assert allowed(synth, stage)["s3:ListBucket"]["Condition"] == {"StringEquals": {"s3:prefix": "releases/"}}


def test_the_key_serves_through_s3_and_sns_only(synth: Synthesized, stage: str) -> None:
    statements = [each for role, each in synth.statements(stage, "Operations") if "kms:" in str(each["Action"])]
    services = {text(each["Condition"]["StringEquals"]["kms:ViaService"]).split(".")[0] for each in statements}
    assert services == {"s3", "sns"}


def test_a_divergence_is_counted_from_the_log_under_the_endpoints_name(synth: Synthesized, stage: str) -> None:
    found = synth.only(stage, "Operations", "AWS::Logs::MetricFilter")
    assert found["FilterPattern"] == '{ $.state = "diverged" }'
    (counted,) = found["MetricTransformations"]
    assert counted["Dimensions"] == [{"Key": "EndpointName", "Value": "$.endpoint"}]
    alarm = next(
        each["Properties"]
        for id_, each in synth.resources(stage, "Operations", "AWS::CloudWatch::Alarm").items()
        if id_.startswith("ReleaseDiverged")
    )
    assert (alarm["Namespace"], alarm["MetricName"]) == (counted["MetricNamespace"], counted["MetricName"])
    assert alarm["Dimensions"] == [{"Name": "EndpointName", "Value": f"kennel-{stage.lower()}"}]
