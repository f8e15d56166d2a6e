"""How a role gets a permission, and how a finding of cdk-nag about it is acknowledged, next to what it concerns."""

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct, IConstruct

# The export of the data stack through which other stacks learn the bucket's ARN, as CDK names it. It follows from the
# bucket's logical id, which a test freezes; if it ever moves, synth fails and prints the new name.
_BUCKET_ARN_EXPORT = "ExportsOutputFnGetAttBucket83908E77Arn063C8555"


def allow(
    role: iam.Role, actions: Sequence[str], resources: Sequence[str], conditions: Mapping[str, object] | None = None
) -> None:
    role.add_to_policy(iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions))


def sagemaker_principal(scope: Construct) -> iam.IPrincipal:
    """Return SageMaker as a principal, acting for this account only."""
    account = {"StringEquals": {"aws:SourceAccount": cdk.Stack.of(scope).account}}
    return iam.ServicePrincipal("sagemaker.amazonaws.com", conditions=account)


def via_s3() -> dict[str, object]:
    """Return the condition that a key is used by S3 on the caller's behalf, never directly."""
    return via("s3")


def via(service: str) -> dict[str, object]:
    """Return the condition that a key is used by `service` on the caller's behalf, never directly."""
    return {"StringEquals": {"kms:ViaService": f"{service}.{cdk.Aws.REGION}.amazonaws.com"}}


def allow_key(role: iam.Role, key: kms.IKey) -> None:
    """Allow what runs as `role` in SageMaker to use `key` for its objects and for its encrypted volumes."""
    allow(role, ["kms:Decrypt", "kms:GenerateDataKey"], [key.key_arn], via_s3())
    # As on AWS's pages about SageMaker's roles: Encrypt for an output's key, a grant for an encrypted volume. Neither
    # through S3, and the grant without kms:GrantIsForAWSResource, which SageMaker is not known to fulfil.
    allow(role, ["kms:CreateGrant", "kms:DescribeKey", "kms:Encrypt"], [key.key_arn])


def allow_logs_and_metrics(role: iam.Role, streams: str, reason: str, *, create_group: bool) -> None:
    """Allow SageMaker's logs in `streams`, a resource with an asterisk for this `reason`, and metrics of its own."""
    actions = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    if create_group:
        actions.append("logs:CreateLogGroup")
    allow(role, actions, [cdk.Stack.of(role).format_arn(service="logs", resource=streams)])
    acknowledge(role, reason, in_account("logs", streams))
    # CloudWatch knows no resource for metrics; the namespace stands in its place.
    allow(role, ["cloudwatch:PutMetricData"], ["*"], {"StringLike": {"cloudwatch:namespace": "/aws/sagemaker/*"}})


def model_packages(role: iam.Role, group: str) -> tuple[str, str]:
    """Return the ARNs of a model package group and of all its packages; acknowledge the asterisk of the second."""
    stack = cdk.Stack.of(role)
    named = stack.format_arn(service="sagemaker", resource="model-package-group", resource_name=group)
    versions = stack.format_arn(service="sagemaker", resource="model-package", resource_name=f"{group}/*")
    finding = in_account("sagemaker", f"model-package/{group}/*")
    acknowledge(role, "A registered model's version is a number that nobody knows before.", finding)
    return named, versions


def allow_listing_packages(role: iam.Role) -> None:
    """Allow `role` to list registered models.

    Of AWS's two references one names the packages as what a listing concerns, the other says that it knows no resource.
    """
    allow(role, ["sagemaker:ListModelPackages"], ["*"])
    acknowledge(role, "AWS's references disagree on whether ListModelPackages knows a resource.", wildcard("*"))


def acknowledge(scope: IConstruct, reason: str, *findings: str) -> None:
    """Accept `findings` (bracketed ids, as synth prints them) on `scope` and below, with one reason."""
    cdk.Validations.of(scope).acknowledge(*(cdk.Acknowledgment(id=each, reason=reason) for each in findings))


def wildcard(resource: str) -> str:
    """Return the id of the finding that a policy names a resource with an asterisk."""
    return f"AwsSolutions-IAM5[Resource::{resource}]"


def any_object(data: cdk.Stack, prefix: str) -> str:
    """Return the id of the finding that a policy names every object under a prefix of the data stack's bucket."""
    return wildcard(f"{data.stack_name}:{_BUCKET_ARN_EXPORT}/{prefix}*")


def in_account(service: str, resource: str) -> str:
    """Return the id of the finding on an ARN of this account and region."""
    return wildcard(f"arn:<AWS::Partition>:{service}:<AWS::Region>:<AWS::AccountId>:{resource}")
