"""Permissions that several roles share, and one line a permission for the rest."""

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.nag import acknowledge, own
from stacks.network import NetworkStack


def allow(
    role: iam.Role, actions: Sequence[str], resources: Sequence[str], conditions: Mapping[str, object] | None = None
) -> None:
    """Adds a statement to the role's own policy."""
    statement = iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions)
    role.add_to_policy(statement)


def sagemaker_principal(scope: Construct) -> iam.IPrincipal:
    """SageMaker, acting for this account only."""
    account = {"StringEquals": {"aws:SourceAccount": cdk.Stack.of(scope).account}}
    return iam.ServicePrincipal("sagemaker.amazonaws.com", conditions=account)


def via_s3() -> dict[str, object]:
    """The condition that a key is used by S3 on the caller's behalf, never directly."""
    return {"StringEquals": {"kms:ViaService": f"s3.{cdk.Aws.REGION}.amazonaws.com"}}


def attach_to_vpc(role: iam.Role, network: NetworkStack) -> None:
    """Lets SageMaker put what runs as `role` into the network's subnets and group; `*` is left to acknowledge."""
    stack = cdk.Stack.of(role)
    describe = ("DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs")
    allow(role, [f"ec2:Describe{what}" for what in describe], ["*"])
    interfaces = stack.format_arn(service="ec2", resource="network-interface", resource_name="*")
    subnets = [
        stack.format_arn(service="ec2", resource="subnet", resource_name=subnet.subnet_id)
        for subnet in network.vpc.isolated_subnets
    ]
    group = network.job_security_group.security_group_id
    groups = stack.format_arn(service="ec2", resource="security-group", resource_name=group)
    allow(role, ["ec2:CreateNetworkInterface"], [interfaces, groups, *subnets])
    change = ("CreateNetworkInterfacePermission", "DeleteNetworkInterface", "DeleteNetworkInterfacePermission")
    allow(role, [f"ec2:{action}" for action in change], [interfaces])
    reason = "SageMaker makes the interfaces when something starts; their names are not known before."
    acknowledge(role, reason, own("ec2", "network-interface/*"))
