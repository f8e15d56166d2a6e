"""The table of all resource types of the embedded CloudFormation, with those that need no file of their own."""

import json
from typing import Any

from moto.cloudformation import parsing
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.common_models import CloudFormationModel

from kennel.rehearsal.cloud.api import ApiError
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION, client
from kennel.rehearsal.cloud.cloudformation.resource import (
    Created,
    EnactedResource,
    EnactedType,
    Properties,
    Read,
    by_id,
    call,
    named,
    with_tag_map,
)
from kennel.rehearsal.cloud.cloudformation.types import buckets, functions, sagemaker
from kennel.rehearsal.cloud.cloudformation.types.accepted import ACCEPTED, AcceptedResource
from kennel.rehearsal.cloud.cloudformation.types.custom import EmptiedBucket, FunctionOnDelete, ImageBuild


def _retain(created: Created) -> None:
    if days := created.properties.get("RetentionInDays"):
        client("logs").put_retention_policy(logGroupName=created.physical_id, retentionInDays=int(days))


def _put_alarm(created: Created) -> None:
    """Put a new alarm into the state of one without data; moto begins with OK."""
    cloudwatch_backends[ACCOUNT][REGION].alarms[created.physical_id].state_value = "INSUFFICIENT_DATA"


def _update_alarm(created: Created, _before: Properties) -> None:
    """Change an alarm, which keeps its state until it is evaluated."""
    alarms = cloudwatch_backends[ACCOUNT][REGION].alarms
    state = alarms[created.physical_id].state_value
    call("cloudwatch", "PutMetricAlarm", created.properties)
    alarms[created.physical_id].state_value = state


def _metric_filter(properties: Properties) -> Properties:
    """Return `properties` with the dimensions as a map, as the API has them."""

    def changed(metric: Properties) -> Properties:
        return {**metric, "Dimensions": {one["Key"]: one["Value"] for one in metric.get("Dimensions", [])}}

    return {**properties, "MetricTransformations": [changed(one) for one in properties["MetricTransformations"]]}


def _rule(member: str) -> Any:
    return lambda physical_id, _properties: {member: physical_id.rpartition("/")[2]}


def _inline_policy(_physical_id: str, properties: Properties) -> Properties:
    return {"RoleName": properties["Roles"][0], "PolicyName": properties["PolicyName"]}


def _queue(physical_id: str, _properties: Properties) -> Properties:
    return {"QueueUrl": physical_id, "AttributeNames": ["All"]}


def _queue_policy(properties: Properties) -> Properties:
    (url,) = properties["Queues"]
    return {"QueueUrl": url, "Attributes": {"Policy": json.dumps(properties["PolicyDocument"])}}


_OTHER_TYPES = [
    named(
        "AWS::Logs::LogGroup",
        "logs",
        "CreateLogGroup",
        "DeleteLogGroup",
        "LogGroupName",
        parameters=with_tag_map,
        # With the star that moto leaves out: policies rely on it to reach the group's streams.
        attributes={"Arn": lambda group: f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group.physical_id}:*"},
        after=_retain,
        reads=[Read("describe_log_groups", by_id("logGroupNamePrefix"))],
    ),
    EnactedType(
        type="AWS::Logs::MetricFilter",
        service="logs",
        create="PutMetricFilter",
        name="FilterName",
        parameters=_metric_filter,
        ref=lambda made: str(made.properties["FilterName"]),
        delete=lambda made: client("logs").delete_metric_filter(
            filterName=made.physical_id, logGroupName=made.properties["LogGroupName"]
        ),
        reads=[Read("describe_metric_filters", by_id("filterNamePrefix"))],
    ),
    EnactedType(
        type="AWS::CloudWatch::Alarm",
        service="cloudwatch",
        create="PutMetricAlarm",
        name="AlarmName",
        ref=lambda alarm: str(alarm.properties["AlarmName"]),
        attributes={"Arn": lambda alarm: f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{alarm.physical_id}"},
        after=_put_alarm,
        update=_update_alarm,
        delete=lambda alarm: client("cloudwatch").delete_alarms(AlarmNames=[alarm.physical_id]),
        reads=[Read("describe_alarms", lambda physical_id, _properties: {"AlarmNames": [physical_id]})],
        note="evaluated while an endpoint is updated; its actions are not taken",
    ),
    # moto's own classes create these.
    EnactedType(
        type="AWS::Events::Rule",
        service="events",
        reads=[Read("describe_rule", _rule("Name")), Read("list_targets_by_rule", _rule("Rule"))],
    ),
    EnactedType(type="AWS::IAM::Policy", service="iam", reads=[Read("get_role_policy", _inline_policy)]),
    EnactedType(
        type="AWS::IAM::Role",
        service="iam",
        reads=[Read(name, by_id("RoleName")) for name in ("get_role", "list_attached_role_policies")],
    ),
    EnactedType(type="AWS::SNS::Topic", service="sns", reads=[Read("get_topic_attributes", by_id("TopicArn"))]),
    EnactedType(type="AWS::SQS::Queue", service="sqs", reads=[Read("get_queue_attributes", _queue)]),
    EnactedType(
        type="AWS::SQS::QueuePolicy",
        service="sqs",
        create="SetQueueAttributes",
        parameters=_queue_policy,
        ref=lambda policy: str(policy.properties["Queues"][0]),
        update=lambda policy, _before: client("sqs").set_queue_attributes(**_queue_policy(policy.properties)),
        fixed=("Queues",),
        delete=lambda policy: client("sqs").set_queue_attributes(
            QueueUrl=policy.physical_id, Attributes={"Policy": ""}
        ),
        reads=[Read("get_queue_attributes", _queue)],
        note="evaluated for what EventBridge sends",
    ),
]
ENACTED = {one.type: one for one in (*buckets.TYPES, *functions.TYPES, *sagemaker.TYPES, *_OTHER_TYPES)}

_STAND_INS: dict[str, Any] = {
    "Custom::CDKContainerImageBuild": ImageBuild,
    "Custom::RegisteredModels": FunctionOnDelete,
    "Custom::S3AutoDeleteObjects": EmptiedBucket,
}


def register() -> None:
    """Put this table in place of moto's own: a type outside it is refused, even one that moto could create."""
    moto_class = parsing.resource_class_from_type
    classes: dict[str, type[CloudFormationModel]] = {
        kind: moto_class(kind) if not enacted.create else _class_of(enacted) for kind, enacted in ENACTED.items()
    }
    classes |= dict.fromkeys(ACCEPTED, AcceptedResource) | _STAND_INS
    moto_name = parsing.resource_name_property_from_type

    def class_from_type(resource_type: str) -> type[CloudFormationModel]:
        if resource_type not in classes:
            raise ApiError("ValidationError", _unknown(resource_type))
        return classes[resource_type]

    def name_from_type(resource_type: str) -> str | None:
        enacted = ENACTED.get(resource_type)
        return enacted.name if enacted and enacted.create else moto_name(resource_type)

    parsing.resource_class_from_type = class_from_type
    parsing.resource_name_property_from_type = name_from_type


def _class_of(kind: EnactedType) -> type[EnactedResource]:
    return type(kind.type.replace("::", ""), (EnactedResource,), {"kind": kind, "__module__": __name__})


def _unknown(resource_type: str) -> str:
    return (
        f"The rehearsal does not know the resource type {resource_type}. If nothing in a rehearsal has to act on it, "
        "add it to ACCEPTED in kennel/rehearsal/cloud/cloudformation/types/accepted.py; otherwise describe how it is "
        "created and read back in types/table.py beside it."
    )
