"""The release of an approved model package: an event, a queue, one stack update, and probes while it lasts."""

import math

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.function import PackageFunction
from stacks.hosting.rollout import METRICS, longest_update_seconds
from stacks.hosting.stack import HostingStack
from stacks.permissions import allow, model_packages
from stacks.queue import queue

_TIMEOUT_SECONDS = 20  # of the function
# Until an approval that found the stack busy comes again: six times the function's timeout, as Lambda advises.
_RETRY_SECONDS = 6 * _TIMEOUT_SECONDS


class ReleaseStack(cdk.Stack):
    """The rule, the queue and the function that update the hosting stack when a package of this stage is approved.

    While a release runs, approvals wait in the queue, which hands them over in order and to one call at a time.
    """

    def __init__(
        self, scope: Construct, id_: str, *, settings: StageSettings, data: DataStack, hosting: HostingStack
    ) -> None:
        super().__init__(scope, id_, description=f"{settings.name}: from an approved model to the endpoint")
        canary = settings.hosting.canary
        promote = PackageFunction(
            self,
            "Promote",
            package="promote",
            settings=settings,
            environment={
                "HOSTING_STACK": hosting.stack_name,
                "MODEL_PACKAGE_GROUP": data.model_package_group_name,
                "MONITORING_MINUTES": str(math.ceil(canary.bake_seconds / 60) if canary else 0),
            },
            memory_mib=256,
            timeout_seconds=_TIMEOUT_SECONDS,
            # One at a time where the stage sets concurrency aside; two updates of a stack refuse each other anyway.
            reserved_concurrency=1 if settings.classify.reserved_concurrency else None,
        )
        hosting.grant_release(promote.role)
        _, versions = model_packages(promote.role, data.model_package_group_name)
        allow(promote.role, ["sagemaker:DescribeModelPackage"], [versions])
        self.dead_letters = queue(self, "DeadLetters", fifo=True, last="This queue is where failed approvals end.")
        self.undelivered = queue(self, "Undelivered", last="This queue is where events end that reached no queue.")
        # An approval waits for the longest release and its rollback; what comes more often is a dead letter.
        tries = math.ceil(2 * longest_update_seconds(canary) / _RETRY_SECONDS)
        approvals = queue(
            self,
            "Approvals",
            fifo=True,
            content_based_deduplication=True,  # an event that comes twice is one message; EventBridge asks for it
            visibility_timeout=cdk.Duration.seconds(_RETRY_SECONDS),
            dead_letter_queue=sqs.DeadLetterQueue(max_receive_count=tries, queue=self.dead_letters),
        )
        promote.function.add_event_source(sources.SqsEventSource(approvals, batch_size=10))
        self._rule(data.model_package_group_name, approvals)
        if canary:
            self._probe(settings, data, hosting)
        cdk.CfnOutput(self, "PromoteFunctionName", value=promote.function.function_name)

    def _probe(self, settings: StageSettings, data: DataStack, hosting: HostingStack) -> None:
        """Ask the endpoint each minute of a release, so that the canary's alarms see something when nobody calls."""
        environment = {"HOSTING_STACK": hosting.stack_name, "ENDPOINT_NAME": hosting.endpoint_name}
        probe = PackageFunction(
            self,
            "Probe",
            package="probe",
            settings=settings,
            environment=environment,
            memory_mib=512,  # a third of a core: sixty photos are signed and sent in a few seconds
            timeout_seconds=55,
            reserved_concurrency=None,
        )
        hosting.grant_probe(probe.role, data)
        allow(probe.role, ["cloudwatch:PutMetricData"], ["*"], {"StringEquals": {"cloudwatch:namespace": METRICS}})
        every = events.Schedule.rate(cdk.Duration.minutes(1))
        # The next minute's call makes up for one that failed.
        target = targets.LambdaFunction(probe.function, retry_attempts=0)
        events.Rule(self, "EachMinute", schedule=every, targets=[target])

    def _rule(self, group: str, approvals: sqs.Queue) -> events.Rule:
        target = targets.SqsQueue(
            approvals,
            message_group_id="release",
            # No more than this, so that two copies of an event, which differ in their ids, are the same message.
            message=events.RuleTargetInput.from_object(
                {
                    "model_package": events.EventField.from_path("$.detail.ModelPackageArn"),
                    "approved_at": events.EventField.from_path("$.detail.LastModifiedTime"),
                }
            ),
            dead_letter_queue=self.undelivered,  # not FIFO, which EventBridge does not take
        )
        return events.Rule(self, "Approved", event_pattern=_approval(group), targets=[target])


def _approval(group: str) -> events.EventPattern:
    """Return the pattern of an approval: every edit of a package sends the event, whatever was changed.

    What was changed stands in UpdatedModelPackageFields, which a new package's event may lack.
    """
    changed = "UpdatedModelPackageFields"
    return events.EventPattern(
        source=["aws.sagemaker"],
        detail_type=["SageMaker Model Package State Change"],
        detail={
            "ModelPackageGroupName": [group],
            "ModelPackageStatus": ["Completed"],
            "ModelApprovalStatus": ["Approved"],
            "$or": [{changed: [{"exists": False}]}, {changed: ["ModelApprovalStatus"]}],
        },
    )
