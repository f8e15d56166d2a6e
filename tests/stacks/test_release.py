"""From an approval through a queue to the update of one stack, and to nothing else."""

import json
from typing import Any

import pytest
from moto.events.models import EventPattern, EventPatternParser

from tests.stacks.synthesized import Synthesized, text
from tests.stacks.test_classify import files_of

FUNCTION, RULE = "AWS::Lambda::Function", "AWS::Events::Rule"


def of_promote(synth: Synthesized, stage: str, type_: str) -> dict[str, Any]:
    """The stack's resources of that type, without those of the probes."""
    found = synth.resources(stage, "Release", type_)
    return {id_: one for id_, one in found.items() if not id_.startswith(("Probe", "EachMinute"))}


def only(synth: Synthesized, stage: str, type_: str) -> dict[str, Any]:
    (one,) = of_promote(synth, stage, type_).values()
    properties: dict[str, Any] = one["Properties"]
    return properties


def statements(synth: Synthesized, stage: str, role: str) -> list[dict[str, Any]]:
    return [each for own, each in synth.statements(stage, "Release") if own.startswith(role)]


def queues(synth: Synthesized, stage: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Logical id and properties of Approvals, DeadLetters and Undelivered."""
    found = synth.resources(stage, "Release", "AWS::SQS::Queue")
    return {id_[:-8]: (id_, queue["Properties"]) for id_, queue in found.items()}


def event(stage: str, **detail: Any) -> dict[str, Any]:
    approved = {
        "ModelPackageGroupName": f"kennel-{stage.lower()}",
        "ModelPackageStatus": "Completed",
        "ModelApprovalStatus": "Approved",
    }
    kind = {"source": "aws.sagemaker", "detail-type": "SageMaker Model Package State Change"}
    return {**kind, "detail": approved | detail}


@pytest.mark.parametrize(
    ("detail", "starts"),
    [
        ({}, True),  # registered as Approved
        ({"UpdatedModelPackageFields": ["ModelApprovalStatus"]}, True),
        ({"UpdatedModelPackageFields": ["ApprovalDescription", "ModelApprovalStatus"]}, True),
        ({"UpdatedModelPackageFields": ["CustomerMetadataProperties"]}, False),
        ({"UpdatedModelPackageFields": ["ModelLifeCycle"]}, False),
        ({"ModelPackageStatus": "InProgress"}, False),
        ({"ModelApprovalStatus": "Rejected"}, False),
        ({"ModelApprovalStatus": "PendingManualApproval"}, False),
        ({"ModelPackageGroupName": "another"}, False),
    ],
)
def test_only_a_new_approval_of_a_complete_package_of_the_stages_group_starts_a_release(
    synth: Synthesized, stage: str, detail: dict[str, Any], starts: bool
) -> None:
    pattern = only(synth, stage, RULE)["EventPattern"]
    assert _matches(pattern, event(stage, **detail)) is starts


def _matches(pattern: dict[str, Any], event: dict[str, Any]) -> bool:
    return EventPattern(None, EventPatternParser(json.dumps(pattern)).parse()).matches_event(event)  # type: ignore[arg-type]


def test_approvals_wait_in_order_in_one_group_and_an_event_that_comes_twice_is_one_message(
    synth: Synthesized, stage: str
) -> None:
    id_, queue = queues(synth, stage)["Approvals"]
    (target,) = only(synth, stage, RULE)["Targets"]
    assert (queue["FifoQueue"], queue["ContentBasedDeduplication"]) == (True, True)
    assert target["Arn"] == {"Fn::GetAtt": [id_, "Arn"]}
    assert target["SqsParameters"] == {"MessageGroupId": "release"}
    transformer = target["InputTransformer"]
    said = {
        name: transformer["InputPathsMap"][value.strip("<>")]
        for name, value in json.loads(transformer["InputTemplate"].replace("<", '"<').replace(">", '>"')).items()
    }
    # Nothing in which two copies of an event differ, as their ids do.
    assert said == {"model_package": "$.detail.ModelPackageArn", "approved_at": "$.detail.LastModifiedTime"}


def test_the_queue_hands_all_that_waits_to_the_function(synth: Synthesized, stage: str) -> None:
    (function,) = of_promote(synth, stage, FUNCTION)
    mapping = only(synth, stage, "AWS::Lambda::EventSourceMapping")
    assert mapping["EventSourceArn"] == {"Fn::GetAtt": [queues(synth, stage)["Approvals"][0], "Arn"]}
    assert (mapping["FunctionName"], mapping["BatchSize"]) == ({"Ref": function}, 10)
    assert of_promote(synth, stage, "AWS::Lambda::Permission") == {}  # nothing else calls it


def test_an_approval_waits_longer_than_a_release_and_its_rollback_take(synth: Synthesized) -> None:
    _, queue = queues(synth, "Prod")["Approvals"]
    endpoint = synth.only("Prod", "Hosting", "AWS::SageMaker::Endpoint")
    longest = endpoint["DeploymentConfig"]["BlueGreenUpdatePolicy"]["MaximumExecutionTimeoutInSeconds"]
    assert queue["RedrivePolicy"]["maxReceiveCount"] * queue["VisibilityTimeout"] >= 2 * longest
    for stage in ("Dev", "Prod"):
        timeout = only(synth, stage, FUNCTION)["Timeout"]
        assert queues(synth, stage)["Approvals"][1]["VisibilityTimeout"] >= 6 * timeout


def test_what_cannot_be_released_or_delivered_is_kept_encrypted(synth: Synthesized, stage: str) -> None:
    found = queues(synth, stage)
    letters, undelivered = found["DeadLetters"], found["Undelivered"]
    assert found["Approvals"][1]["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": [letters[0], "Arn"]}
    assert letters[1]["FifoQueue"] is True  # as a FIFO queue demands
    (target,) = only(synth, stage, RULE)["Targets"]
    assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": [undelivered[0], "Arn"]}}
    assert "FifoQueue" not in undelivered[1]  # which EventBridge refuses
    for _, queue in found.values():
        assert queue["SqsManagedSseEnabled"] is True
        assert queue["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_the_queues_refuse_plain_http_and_take_events_from_this_rule_only(synth: Synthesized, stage: str) -> None:
    (rule,) = of_promote(synth, stage, RULE)
    senders = {}
    for policy in synth.resources(stage, "Release", "AWS::SQS::QueuePolicy").values():
        deny, *allowing = policy["Properties"]["PolicyDocument"]["Statement"]
        assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
        (queue,) = policy["Properties"]["Queues"]
        senders[queue["Ref"][:-8]] = [each["Condition"] for each in allowing]
    this_rule = [{"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": [rule, "Arn"]}}}]
    assert senders == {"Approvals": this_rule, "Undelivered": this_rule, "DeadLetters": []}


@pytest.mark.parametrize(("stage", "minutes"), [("Dev", "0"), ("Prod", "10")])
def test_the_function_knows_its_stack_its_group_and_how_long_to_watch(
    synth: Synthesized, stage: str, minutes: str
) -> None:
    function = only(synth, stage, FUNCTION)
    assert function["Handler"] == "promote.handler.handler"
    assert (function["Runtime"], function["Architectures"]) == ("python3.14", ["arm64"])
    assert function["Environment"]["Variables"] == {
        "HOSTING_STACK": f"Kennel-{stage}-Hosting",
        "MODEL_PACKAGE_GROUP": f"kennel-{stage.lower()}",
        "MONITORING_MINUTES": minutes,
    }
    assert {file.split("/")[0] for file in files_of(synth, function)} == {"promote"}


def test_the_role_updates_and_reads_the_hosting_stack_and_no_other(synth: Synthesized, stage: str) -> None:
    (statement,) = [each for each in statements(synth, stage, "Promote") if "cloudformation" in str(each["Action"])]
    assert statement["Action"] == ["cloudformation:DescribeStacks", "cloudformation:UpdateStack"]
    own = "arn:<AWS::Partition>:cloudformation:<AWS::Region>:<AWS::AccountId>"
    assert text(statement["Resource"]) == f"{own}:stack/Kennel-{stage}-Hosting/*"


def test_the_role_passes_no_role_and_only_reads_of_sagemaker(synth: Synthesized, stage: str) -> None:
    actions = set()
    for statement in statements(synth, stage, "Promote"):
        actions |= set(statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]])
    watching = {"cloudwatch"} if stage == "Prod" else set()
    assert {each.split(":")[0] for each in actions} == {"cloudformation", "logs", "sagemaker", "sqs", "xray"} | watching
    assert {each for each in actions if each.startswith("sagemaker:")} == {"sagemaker:DescribeModelPackage"}


def test_concurrency_is_set_aside_only_where_the_stage_sets_some_aside(synth: Synthesized) -> None:
    assert only(synth, "Prod", FUNCTION)["ReservedConcurrentExecutions"] == 1
    assert "ReservedConcurrentExecutions" not in only(synth, "Dev", FUNCTION)


def test_a_stage_with_a_canary_probes_its_endpoint_each_minute(synth: Synthesized) -> None:
    found = synth.resources("Prod", "Release", FUNCTION)
    ((id_, function),) = [(id_, one["Properties"]) for id_, one in found.items() if id_.startswith("Probe")]
    assert function["Handler"] == "probe.handler.handler"
    assert function["Timeout"] < 60  # done before the next one
    assert function["Environment"]["Variables"] == {
        "HOSTING_STACK": "Kennel-Prod-Hosting",
        "ENDPOINT_NAME": "kennel-prod",
    }
    rules = [one["Properties"] for one in synth.resources("Prod", "Release", RULE).values()]
    ((schedule, target),) = [
        (one["ScheduleExpression"], one["Targets"][0]) for one in rules if "EventPattern" not in one
    ]
    assert (schedule, target["Arn"]) == ("rate(1 minute)", {"Fn::GetAtt": [id_, "Arn"]})
    assert not any(id_.startswith("Probe") for id_ in synth.resources("Dev", "Release", FUNCTION))


def test_the_probes_role_asks_reads_and_publishes_and_changes_nothing(synth: Synthesized) -> None:
    found: set[str] = set()
    for one in statements(synth, "Prod", "Probe"):
        found |= {*one["Action"]} if isinstance(one["Action"], list) else {one["Action"]}
    of_logs_and_traces = {each for each in found if each.startswith(("logs:", "xray:"))}
    assert found - of_logs_and_traces == {
        "cloudformation:DescribeStacks",
        "cloudwatch:PutMetricData",
        "kms:Decrypt",
        "s3:GetObject",
        "sagemaker:DescribeModelPackage",
        "sagemaker:InvokeEndpoint",
    }
