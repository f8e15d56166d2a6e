"""The role of the pipeline's jobs: their data, their image, their logs, and nothing else."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.data import DataStack
from stacks.grants import allow, attach_to_vpc, sagemaker_principal, via_s3
from stacks.images import ImagesStack
from stacks.nag import acknowledge, objects, own, wildcard
from stacks.network import NetworkStack

_MADE = ("prepared/", "runs/")
_CHECKPOINTS = "runs/*/checkpoints/"


def job_role(scope: Construct, *, data: DataStack, images: ImagesStack, network: NetworkStack | None) -> iam.Role:
    """Reads data sets, reads and writes what jobs make."""
    role = iam.Role(scope, "JobRole", assumed_by=sagemaker_principal(scope), description="Runs the pipeline's jobs")
    images.training.grant_pull(role)
    _use_data(role, data)
    _use_key(role, data)
    _report(role)
    if network:
        attach_to_vpc(role, network)
    acknowledge(role, "PutMetricData, EC2's Describe and GetAuthorizationToken know no resource.", wildcard("*"))
    return role


def _use_data(role: iam.Role, data: DataStack) -> None:
    bucket = data.bucket
    allow(role, ["s3:ListBucket", "s3:GetBucketLocation"], [bucket.bucket_arn])
    allow(role, ["s3:GetObject"], [bucket.arn_for_objects(f"{prefix}*") for prefix in ("datasets/", *_MADE)])
    made = [bucket.arn_for_objects(f"{prefix}*") for prefix in _MADE]
    allow(role, ["s3:PutObject", "s3:AbortMultipartUpload"], made)
    # SageMaker mirrors the folder of checkpoints: what the job has pruned goes from the bucket too.
    allow(role, ["s3:DeleteObject"], [bucket.arn_for_objects(f"{_CHECKPOINTS}*")])
    reason = "Uploads, runs and executions name what lies under these prefixes."
    acknowledge(role, reason, *(objects(data, prefix) for prefix in ("datasets/", *_MADE, _CHECKPOINTS)))


def _use_key(role: iam.Role, data: DataStack) -> None:
    key = [data.key.key_arn]
    allow(role, ["kms:Decrypt", "kms:GenerateDataKey"], key, via_s3())
    allow(role, ["kms:DescribeKey"], key)
    # A grant is how the service attaches an encrypted volume for the job.
    allow(role, ["kms:CreateGrant"], key, {"Bool": {"kms:GrantIsForAWSResource": "true"}})


def _report(role: iam.Role) -> None:
    name = "log-group:/aws/sagemaker/*"
    actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    allow(role, actions, [cdk.Stack.of(role).format_arn(service="logs", resource=name)])
    acknowledge(role, "SageMaker names the log groups and streams of its jobs.", own("logs", name))
    # The action knows no resource; the namespace is what can be narrowed.
    jobs = {"StringLike": {"cloudwatch:namespace": "/aws/sagemaker/*"}}
    allow(role, ["cloudwatch:PutMetricData"], ["*"], jobs)
