"""The function that writes down what became of each release, and the rules by which it hears of one."""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from constructs import Construct

from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.function import PackageFunction
from stacks.hosting.stack import HostingStack
from stacks.permissions import acknowledge, allow, any_object, model_packages, via, via_s3

_RECORDS = "releases/"
# Of the hosting stack; what ends none of its updates is of no interest.
_STATUSES = ["UPDATE_IN_PROGRESS", "UPDATE_COMPLETE", "UPDATE_FAILED", "UPDATE_ROLLBACK_COMPLETE"]
_STATUSES += ["UPDATE_ROLLBACK_FAILED"]


class Observer(Construct):
    """The function, its rules, and the metric of releases after which the endpoint serves something else."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        settings: StageSettings,
        data: DataStack,
        hosting: HostingStack,
        topic: sns.Topic,
    ) -> None:
        super().__init__(scope, id_)
        observe = PackageFunction(
            self,
            "Observe",
            package="observe",
            settings=settings,
            environment={
                "HOSTING_STACK": hosting.stack_name,
                "ENDPOINT_NAME": hosting.endpoint_name,
                "MODEL_PACKAGES": cdk.Stack.of(self).format_arn(
                    service="sagemaker", resource="model-package", resource_name=data.model_package_group_name
                ),
                "RECORDS_BUCKET": data.bucket.bucket_name,
                "ALARM_TOPIC": topic.topic_arn,
            },
            memory_mib=256,
            timeout_seconds=60,
            reserved_concurrency=None,
        )
        self.function = observe.function
        hosting.grant_observe(observe.role)
        _write_release(observe.role, data, topic)
        for id_of_rule, pattern in _patterns(cdk.Stack.of(self), data, hosting).items():
            rule = events.Rule(self, id_of_rule, event_pattern=events.EventPattern(**pattern))
            rule.add_target(targets.LambdaFunction(self.function))
        self.diverged = _diverged(self, observe.log_group, hosting)


def _write_release(role: iam.Role, data: DataStack, topic: sns.Topic) -> None:
    _, versions = model_packages(role, data.model_package_group_name)
    allow(role, ["sagemaker:DescribeModelPackage", "sagemaker:UpdateModelPackage"], [versions])
    allow(role, ["s3:ListBucket"], [data.bucket.bucket_arn], {"StringEquals": {"s3:prefix": _RECORDS}})
    allow(role, ["s3:PutObject"], [data.bucket.arn_for_objects(f"{_RECORDS}*")])
    acknowledge(role, "A record's name says version, time and state.", any_object(data, _RECORDS))
    allow(role, ["kms:GenerateDataKey"], [data.key.key_arn], via_s3())
    allow(role, ["sns:Publish"], [topic.topic_arn])
    allow(role, ["kms:Decrypt", "kms:GenerateDataKey"], [data.key.key_arn], via("sns"))


def _patterns(stack: cdk.Stack, data: DataStack, hosting: HostingStack) -> dict[str, dict[str, Any]]:
    """Return what the function hears, by the rule's id."""
    arn = stack.format_arn(service="cloudformation", resource="stack", resource_name=f"{hosting.stack_name}/")
    return {
        "Approvals": {
            "source": ["aws.sagemaker"],
            "detail_type": ["SageMaker Model Package State Change"],
            "detail": {
                "ModelPackageGroupName": [data.model_package_group_name],
                "ModelApprovalStatus": ["Approved", "Rejected"],
            },
        },
        "Updates": {
            "source": ["aws.cloudformation"],
            "detail_type": ["CloudFormation Stack Status Change"],
            "detail": {"stack-id": [{"prefix": arn}], "status-details": {"status": _STATUSES}},
        },
        "Deployments": {
            "source": ["aws.sagemaker"],
            "detail_type": ["SageMaker Endpoint Deployment State Change"],
            "detail": {"EndpointName": [hosting.endpoint_name]},
        },
        "RollbackAlarms": {
            "source": ["aws.cloudwatch"],
            "detail_type": ["CloudWatch Alarm State Change"],
            "detail": {
                "alarmName": [{"prefix": hosting.rollback_alarm_prefix}],
                "state": {"value": ["ALARM"]},
            },
        },
    }


def _diverged(scope: Construct, log_group: logs.LogGroup, hosting: HostingStack) -> cloudwatch.Metric:
    """Return the number of updates of the stack after which the endpoint served something else."""
    named: dict[str, Any] = {"metric_namespace": "Kennel/Release", "metric_name": "Diverged"}
    logs.MetricFilter(
        scope,
        "Diverged",
        log_group=log_group,
        filter_pattern=logs.FilterPattern.string_value("$.state", "=", "diverged"),
        dimensions={"EndpointName": "$.endpoint"},
        **named,
    )
    return cloudwatch.Metric(
        namespace=named["metric_namespace"],
        metric_name=named["metric_name"],
        dimensions_map={"EndpointName": hosting.endpoint_name},
        statistic="Sum",
        period=cdk.Duration.minutes(1),
    )
