"""What the endpoint's instances may do: read models, write captures, log, and nothing else."""

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.findings import acknowledge, objects, own, wildcard


class EndpointRole(iam.Role):
    """The execution role of the hosted model."""

    def __init__(self, scope: Construct, id_: str, *, settings: StageSettings, data: DataStack) -> None:
        account = {"StringEquals": {"aws:SourceAccount": cdk.Aws.ACCOUNT_ID}}
        trusted = iam.ServicePrincipal("sagemaker.amazonaws.com", conditions=account)
        super().__init__(scope, id_, assumed_by=trusted)
        bucket = data.bucket
        self._allow(["s3:GetObject"], bucket.arn_for_objects("runs/*"))
        self._allow(["s3:PutObject"], bucket.arn_for_objects("capture/*"))
        self._allow(["kms:Decrypt", "kms:GenerateDataKey"], data.key.key_arn, via_s3())
        for_disks = {"Bool": {"kms:GrantIsForAWSResource": "true"}}
        self._allow(["kms:CreateGrant"], data.key.key_arn, for_disks)
        self._allow(["kms:DescribeKey"], data.key.key_arn)
        logs = f"log-group:/aws/sagemaker/Endpoints/{settings.name}"
        group = cdk.Stack.of(self).format_arn(service="logs", resource=logs)
        self._allow(
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            f"{group}:*",
        )
        # CloudWatch knows no resource for metrics; the namespace stands in its place.
        metrics = {"StringLike": {"cloudwatch:namespace": "/aws/sagemaker/*"}}
        self._allow(["cloudwatch:PutMetricData"], "*", metrics)
        streams = own("logs", f"{logs}:*")
        acknowledge(self, "Every stream of the endpoint's own log group.", streams)
        acknowledge(self, "The names of artifacts and captures are made by SageMaker.", *_objects(data))
        acknowledge(self, "PutMetricData and ECR's GetAuthorizationToken know no resource.", wildcard("*"))

    def _allow(self, actions: list[str], resource: str, conditions: Mapping[str, object] | None = None) -> None:
        statement = iam.PolicyStatement(actions=actions, resources=[resource], conditions=conditions)
        self.add_to_policy(statement)


def _objects(data: DataStack) -> list[str]:
    return [objects(data, prefix) for prefix in ("runs/", "capture/")]


def via_s3() -> dict[str, object]:
    """The condition that a key is used by S3 on the caller's behalf, never directly."""
    return {"StringEquals": {"kms:ViaService": f"s3.{cdk.Aws.REGION}.amazonaws.com"}}
