"""What the embedded AWS tells of its own changes: stacks, alarms, and who changed a model package."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kennel.rehearsal.interfaces import FunctionAnswer, FunctionCall
from tests.rehearsal.cloud.test_iam import allow, of
from tests.rehearsal.cloud.world import World, eventually, refusal

HEARD: list[dict[str, Any]] = []
QUEUE = {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": {"Ref": "Seconds"}}}
TEMPLATE = {
    "Parameters": {"Seconds": {"Type": "String", "Default": "30"}},
    "Resources": {
        "Queue": QUEUE,
        "Log": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": {"Fn::Sub": "log-${Seconds}"}}},
    },
}


def hear(call: FunctionCall) -> FunctionAnswer:
    HEARD.append(json.loads(call.payload))
    return FunctionAnswer(b"{}", None, "")


@pytest.fixture(scope="module")
def world(empty_world: World) -> World:
    """A function hears every event of CloudFormation and CloudWatch."""
    empty_world.function = hear
    events = empty_world.cloud.client("events")
    pattern = json.dumps({"source": ["aws.cloudformation", "aws.cloudwatch"]})
    rule = events.put_rule(Name="all", EventPattern=pattern)["RuleArn"]
    events.put_targets(Rule="all", Targets=[{"Id": "1", "Arn": empty_world.make_function("listener")}])
    empty_world.cloud.client("lambda").add_permission(
        FunctionName="listener",
        StatementId="s",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=rule,
    )
    return empty_world


@pytest.fixture(autouse=True)
def nothing_heard() -> None:
    HEARD.clear()


def update(world: World, name: str, seconds: str, **more: str) -> dict[str, Any]:
    given = [{"ParameterKey": "Seconds", "ParameterValue": seconds}]
    cloudformation = world.cloud.client("cloudformation")
    cloudformation.update_stack(StackName=name, UsePreviousTemplate=True, Parameters=given, **more)
    eventually(lambda: not world.stack(name)["StackStatus"].endswith("IN_PROGRESS"))
    return world.stack(name)


def statuses(token: str) -> set[str]:
    """The statuses in the events of the operation with this token."""
    details = [event["detail"] for event in HEARD if event["detail"].get("client-request-token") == token]
    return {one["status-details"]["status"] for one in details}


def test_a_stack_s_status_changes_are_events_that_carry_the_operation_s_token(world: World) -> None:
    world.create("Told", TEMPLATE)
    update(world, "Told", "60", ClientRequestToken="release-7-1")
    eventually(lambda: statuses("release-7-1") == {"UPDATE_IN_PROGRESS", "UPDATE_COMPLETE"})
    (event,) = [one for one in HEARD if one["detail"].get("status-details", {}).get("status") == "UPDATE_COMPLETE"]
    assert event["detail-type"] == "CloudFormation Stack Status Change"
    assert event["resources"] == [world.stack("Told")["StackId"]]


def test_an_operation_s_events_have_its_token_and_those_of_the_next_one_another(world: World) -> None:
    world.create("Twice", TEMPLATE)
    update(world, "Twice", "60", ClientRequestToken="release-7-1")
    update(world, "Twice", "90")
    events = world.cloud.client("cloudformation").describe_stack_events(StackName="Twice")["StackEvents"]
    tokens = [(one["ResourceStatus"], one.get("ClientRequestToken", "")) for one in events[::-1]]
    assert [token for status, token in tokens if status == "UPDATE_IN_PROGRESS"] == ["release-7-1", ""]
    assert {token for _, token in tokens} == {"release-7-1", ""}
    assert tokens[-1][1] == ""


def test_an_update_that_is_rolled_back_says_so_with_the_reason(world: World) -> None:
    world.create("Back", TEMPLATE)
    update(world, "Back", "not a number", ClientRequestToken="release-8-1")
    ends = {"UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"}
    eventually(lambda: statuses("release-8-1") == ends)


def test_an_alarm_of_a_stack_tells_each_change_of_its_state_and_remembers_it(world: World) -> None:
    alarm = {
        "Namespace": "AWS/SageMaker",
        "MetricName": "ModelLatency",
        "ExtendedStatistic": "p95",
        "Period": 60,
        "EvaluationPeriods": 2,
        "Threshold": 3_000_000,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
        "Dimensions": [{"Name": "EndpointName", "Value": "e"}],
    }
    template = {"Resources": {"Slow": {"Type": "AWS::CloudWatch::Alarm", "Properties": alarm}}}
    template |= {"Outputs": {"Name": {"Value": {"Ref": "Slow"}}, "Arn": {"Value": {"Fn::GetAtt": ["Slow", "Arn"]}}}}
    outputs = {one["OutputKey"]: one["OutputValue"] for one in world.create("Alarms", template)["Outputs"]}
    name, cloudwatch = outputs["Name"], world.cloud.client("cloudwatch")
    began = datetime.now(UTC)
    for state, reason in (("ALARM", "3.2 s"), ("ALARM", "3.4 s"), ("OK", "0.1 s")):
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason=reason)

    def history(**more: Any) -> list[str]:
        asked = {"AlarmName": name, "HistoryItemType": "StateUpdate", "StartDate": began, **more}
        return [one["HistorySummary"] for one in cloudwatch.describe_alarm_history(**asked)["AlarmHistoryItems"]]

    changes = ["Alarm updated from INSUFFICIENT_DATA to ALARM", "Alarm updated from ALARM to OK"]
    assert history(ScanBy="TimestampAscending") == changes
    assert history() == changes[::-1]
    assert history(StartDate=datetime.now(UTC) + timedelta(hours=1)) == []
    told = eventually(lambda: [one for one in HEARD if one["detail-type"] == "CloudWatch Alarm State Change"][1:])
    assert told[0]["resources"] == [outputs["Arn"]]
    assert (
        refusal(cloudwatch.set_alarm_state, AlarmName="none", StateValue="OK", StateReason="")[0] == "ResourceNotFound"
    )


def test_a_topic_is_written_to_by_whoever_may_use_its_key_too(world: World) -> None:
    key = world.cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    template = {
        "Resources": {"T": {"Type": "AWS::SNS::Topic", "Properties": {"KmsMasterKeyId": key}}},
        "Outputs": {"Arn": {"Value": {"Ref": "T"}}},
    }
    topic = world.create("Topic", template)["Outputs"][0]["OutputValue"]
    through = {"kms:ViaService": "sns.us-east-1.amazonaws.com"}
    uses_key = allow(["kms:Decrypt", "kms:GenerateDataKey"], key, StringEquals=through)
    world.role("keyless-publisher", allow("sns:Publish", topic))
    world.role("publisher", allow("sns:Publish", topic), uses_key)
    denied = refusal(of(world, "sns", "keyless-publisher").publish, TopicArn=topic, Message="m")[1]
    assert f"kms:Decrypt on resource: {key}" in denied
    assert of(world, "sns", "publisher").publish(TopicArn=topic, Message="m")["MessageId"]


def test_the_registry_says_who_changed_a_package_last(world: World) -> None:
    sagemaker = world.cloud.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="owned")
    formats = {"SupportedContentTypes": ["image/*"], "SupportedResponseMIMETypes": ["application/json"]}
    container = {"Image": "local/x", "ModelDataUrl": "s3://b/m"}
    arn = sagemaker.create_model_package(
        ModelPackageGroupName="owned", InferenceSpecification={"Containers": [container], **formats}
    )["ModelPackageArn"]
    world.role("approver", allow("sagemaker:UpdateModelPackage", arn))
    of(world, "sagemaker", "approver").update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    about = sagemaker.describe_model_package(ModelPackageName=arn)
    assert "LastModifiedBy" in about
    assert about["CreatedBy"]["IamIdentity"]["Arn"] == "arn:aws:iam::123456789012:user/rehearsal"
    who = about["LastModifiedBy"]["IamIdentity"]["Arn"]
    assert who == "arn:aws:sts::123456789012:assumed-role/approver/rehearsal"
