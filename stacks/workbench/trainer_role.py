"""What a training instance may do: read data sets, write its runs, pull the image, be reached by Session Manager."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.data import DataStack
from stacks.grants import allow, via_s3
from stacks.images import ImagesStack
from stacks.nag import acknowledge, objects, own, wildcard

# What AWS's managed policy for Session Manager grants and a session really needs; these know no resource.
_SESSION = [
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
]


def trainer_role(scope: Construct, *, data: DataStack, images: ImagesStack, prefix: str) -> iam.Role:
    """Return the instance's role; `prefix` is where in the data bucket it may write."""
    principal = iam.ServicePrincipal("ec2.amazonaws.com")
    role = iam.Role(scope, "Role", assumed_by=principal, description="Trains on an EC2 instance")
    images.training.grant_pull(role)
    allow(role, ["s3:ListBucket"], [data.bucket.bucket_arn], {"StringLike": {"s3:prefix": "datasets/*"}})
    allow(role, ["s3:GetObject"], [data.bucket.arn_for_objects("datasets/*")])
    allow(role, ["s3:PutObject"], [data.bucket.arn_for_objects(f"{prefix}/*")])
    allow(role, ["kms:Decrypt", "kms:GenerateDataKey"], [data.key.key_arn], via_s3())
    instances = cdk.Stack.of(scope).format_arn(service="ec2", resource="instance", resource_name="*")
    allow(role, ["ssm:UpdateInstanceInformation"], [instances])
    allow(role, _SESSION, ["*"])
    written = (objects(data, "datasets/"), objects(data, f"{prefix}/"))
    acknowledge(role, "Data sets and runs come and go under their prefix.", *written)
    acknowledge(role, "An instance reports itself, and gets its id at launch.", own("ec2", "instance/*"))
    acknowledge(role, "ssmmessages and ECR's GetAuthorizationToken know no resource.", wildcard("*"))
    return role
