"""What the endpoint's instances may do: read models, write captures, log, and nothing else."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.grants import allow, attach_to_vpc, sagemaker_principal, via_s3
from stacks.images import ImagesStack
from stacks.nag import acknowledge, objects, own, wildcard
from stacks.network import NetworkStack


def endpoint_role(
    scope: Construct, *, settings: StageSettings, data: DataStack, images: ImagesStack, network: NetworkStack | None
) -> iam.Role:
    """Return the execution role of the hosted model."""
    role = iam.Role(scope, "Role", assumed_by=sagemaker_principal(scope), description="Serves the released model")
    images.inference.grant_pull(role)
    _use_data(role, data)
    _report(role, settings)
    if network:
        attach_to_vpc(role, network)
    acknowledge(role, "PutMetricData, EC2's Describe and GetAuthorizationToken know no resource.", wildcard("*"))
    return role


def _use_data(role: iam.Role, data: DataStack) -> None:
    key = [data.key.key_arn]
    allow(role, ["s3:GetObject"], [data.bucket.arn_for_objects("runs/*")])
    allow(role, ["s3:PutObject"], [data.bucket.arn_for_objects("capture/*")])
    allow(role, ["kms:Decrypt", "kms:GenerateDataKey"], key, via_s3())
    allow(role, ["kms:DescribeKey"], key)
    # A grant is how the service attaches an encrypted volume for the endpoint.
    allow(role, ["kms:CreateGrant"], key, {"Bool": {"kms:GrantIsForAWSResource": "true"}})
    reason = "The names of artifacts and captures are made by SageMaker."
    acknowledge(role, reason, objects(data, "runs/"), objects(data, "capture/"))


def _report(role: iam.Role, settings: StageSettings) -> None:
    streams = f"log-group:/aws/sagemaker/Endpoints/{settings.name}:*"
    actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    allow(role, actions, [cdk.Stack.of(role).format_arn(service="logs", resource=streams)])
    acknowledge(role, "Every stream of the endpoint's own log group.", own("logs", streams))
    # CloudWatch knows no resource for metrics; the namespace stands in its place.
    allow(role, ["cloudwatch:PutMetricData"], ["*"], {"StringLike": {"cloudwatch:namespace": "/aws/sagemaker/*"}})
