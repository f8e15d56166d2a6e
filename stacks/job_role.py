"""The role of the pipeline's jobs: their data, their image, their logs, and nothing else."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.data import DataStack
from stacks.images import ImagesStack


def sagemaker_principal(scope: Construct) -> iam.IPrincipal:
    """SageMaker, acting for this account only."""
    account = {"StringEquals": {"aws:SourceAccount": cdk.Stack.of(scope).account}}
    return iam.ServicePrincipal("sagemaker.amazonaws.com", conditions=account)


def job_role(scope: Construct, *, data: DataStack, images: ImagesStack, in_vpc: bool) -> iam.Role:
    """Reads data sets, reads and writes what jobs make."""
    role = iam.Role(scope, "JobRole", assumed_by=sagemaker_principal(scope), description="Runs the pipeline's jobs")
    images.training.grant_pull(role)
    role.add_to_policy(
        iam.PolicyStatement(
            actions=["s3:GetObject"], resources=[data.bucket.arn_for_objects(f"{p}/*") for p in ("datasets", *_MADE)]
        )
    )
    role.add_to_policy(
        iam.PolicyStatement(
            actions=["s3:PutObject", "s3:AbortMultipartUpload"],
            resources=[data.bucket.arn_for_objects(f"{prefix}/*") for prefix in _MADE],
        )
    )
    role.add_to_policy(
        iam.PolicyStatement(
            actions=["s3:DeleteObject"],  # SageMaker mirrors a checkpoint folder: what the job pruned is deleted
            resources=[data.bucket.arn_for_objects("runs/*/checkpoints/*")],
        )
    )
    role.add_to_policy(
        iam.PolicyStatement(actions=["s3:ListBucket", "s3:GetBucketLocation"], resources=[data.bucket.bucket_arn])
    )
    _use_key(role, data)
    _write_logs(role)
    if in_vpc:
        _attach_to_vpc(role)
    return role


_MADE = ("prepared", "runs")


def _use_key(role: iam.Role, data: DataStack) -> None:
    role.add_to_policy(
        iam.PolicyStatement(
            actions=["kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"], resources=[data.key.key_arn]
        )
    )
    role.add_to_policy(
        iam.PolicyStatement(  # how a service attaches an encrypted volume for the caller
            actions=["kms:CreateGrant"],
            resources=[data.key.key_arn],
            conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
        )
    )


def _write_logs(role: iam.Role) -> None:
    stack = cdk.Stack.of(role)
    groups = stack.format_arn(
        service="logs",
        resource="log-group",
        resource_name="/aws/sagemaker/*",
        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
    )
    role.add_to_policy(
        iam.PolicyStatement(
            actions=["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            resources=[groups],
        )
    )
    role.add_to_policy(
        iam.PolicyStatement(  # the action knows no resources; the namespace is what can be narrowed
            actions=["cloudwatch:PutMetricData"],
            resources=["*"],
            conditions={
                "StringEquals": {
                    "cloudwatch:namespace": ["/aws/sagemaker/TrainingJobs", "/aws/sagemaker/ProcessingJobs"]
                }
            },
        )
    )


def _attach_to_vpc(role: iam.Role) -> None:
    """EC2's Describe actions know no resources; interfaces do, but SageMaker's names are known only when they exist."""
    role.add_to_policy(
        iam.PolicyStatement(
            actions=[
                "ec2:DescribeDhcpOptions",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
            ],
            resources=["*"],
        )
    )
    role.add_to_policy(
        iam.PolicyStatement(
            actions=[
                "ec2:CreateNetworkInterface",
                "ec2:CreateNetworkInterfacePermission",
                "ec2:DeleteNetworkInterface",
                "ec2:DeleteNetworkInterfacePermission",
            ],
            resources=[
                cdk.Stack.of(role).format_arn(service="ec2", resource=kind, resource_name="*")
                for kind in ("network-interface", "subnet", "security-group")
            ],
        )
    )
