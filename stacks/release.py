"""The release of an approved model package: one event, one function, one stack update."""

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.function import PackageFunction
from stacks.hosting.stack import HostingStack
from stacks.permissions import acknowledge, in_account


class ReleaseStack(cdk.Stack):
    """The rule and the function that update the hosting stack when a package of this stage's group is approved."""

    def __init__(
        self, scope: Construct, id_: str, *, settings: StageSettings, data: DataStack, hosting: HostingStack
    ) -> None:
        super().__init__(scope, id_, description=f"{settings.name}: from an approved model to the endpoint")
        self.dead_letters = self._dead_letters()
        self.function = PackageFunction(
            self,
            "Promote",
            package="promote",
            settings=settings,
            environment={
                "HOSTING_STACK": hosting.stack_name,
                "MODEL_PACKAGE_GROUP": data.model_package_group_name,
            },
            memory_mib=256,
            timeout_seconds=60,
            # One at a time where the stage sets concurrency aside; two updates of a stack refuse each other anyway.
            reserved_concurrency=1 if settings.classify.reserved_concurrency else None,
        ).function
        self.function.configure_async_invoke(
            on_failure=destinations.SqsDestination(self.dead_letters),
            retry_attempts=2,
            max_event_age=cdk.Duration.hours(6),
        )
        hosting.grant_release(self.function)
        reason = "The id at the end of a stack's ARN changes when the stack is made anew; the name before it is unique."
        acknowledge(self, reason, in_account("cloudformation", f"stack/{hosting.stack_name}/*"))
        approved = events.EventPattern(
            source=["aws.sagemaker"],
            detail_type=["SageMaker Model Package State Change"],
            detail={"ModelPackageGroupName": [data.model_package_group_name], "ModelApprovalStatus": ["Approved"]},
        )
        target = targets.LambdaFunction(self.function, dead_letter_queue=self.dead_letters)
        events.Rule(self, "Approved", event_pattern=approved, targets=[target])
        cdk.CfnOutput(self, "PromoteFunctionName", value=self.function.function_name)

    def _dead_letters(self) -> sqs.Queue:
        # An approval that could not be acted on waits here, and Operations raises an alarm.
        queue = sqs.Queue(
            self,
            "DeadLetters",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=cdk.Duration.days(14),
        )
        acknowledge(queue, "This queue is where failed events end.", "AwsSolutions-SQS3")
        return queue
