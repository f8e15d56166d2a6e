"""What a training instance may do: read data sets, write its runs, pull the image, be reached by Session Manager."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.data import DataStack
from stacks.endpoint_role import via_s3
from stacks.findings import acknowledge, objects, own, wildcard
from stacks.images import ImagesStack

# What AWS's managed policy for Session Manager grants and a session really needs; these know no resource.
_SESSION = [
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
]


def trainer_role(scope: Construct, *, data: DataStack, images: ImagesStack, prefix: str) -> iam.Role:
    """Return the instance's role; `prefix` is where in the data bucket it may write."""
    role = iam.Role(scope, "Role", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
    images.training.grant_pull(role)
    instances = cdk.Stack.of(scope).format_arn(service="ec2", resource="instance", resource_name="*")
    for statement in (
        iam.PolicyStatement(
            actions=["s3:ListBucket"],
            resources=[data.bucket.bucket_arn],
            conditions={"StringLike": {"s3:prefix": "datasets/*"}},
        ),
        iam.PolicyStatement(actions=["s3:GetObject"], resources=[data.bucket.arn_for_objects("datasets/*")]),
        iam.PolicyStatement(actions=["s3:PutObject"], resources=[data.bucket.arn_for_objects(f"{prefix}/*")]),
        iam.PolicyStatement(
            actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[data.key.key_arn], conditions=via_s3()
        ),
        iam.PolicyStatement(actions=["ssm:UpdateInstanceInformation"], resources=[instances]),
        iam.PolicyStatement(actions=_SESSION, resources=["*"]),
    ):
        role.add_to_policy(statement)
    written = (objects(data, "datasets/"), objects(data, f"{prefix}/"))
    acknowledge(role, "Data sets and runs come and go under their prefix.", *written)
    acknowledge(role, "An instance reports itself, and gets its id at launch.", own("ec2", "instance/*"))
    acknowledge(role, "ssmmessages and ECR's GetAuthorizationToken know no resource.", wildcard("*"))
    return role
