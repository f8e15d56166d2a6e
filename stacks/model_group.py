"""Where models are registered; a removable stage's group can be deleted together with them."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from stacks.config import StageSettings
from stacks.function import PackageFunction
from stacks.grants import allow
from stacks.nag import acknowledge, own

_TIMEOUT_SECONDS = 900  # Lambda's longest: SageMaker deletes a few packages a second


def model_group(scope: Construct, settings: StageSettings) -> sagemaker.CfnModelPackageGroup:
    """The group; where the stage is removable, with what empties it before CloudFormation deletes it."""
    # No description: a changed one replaces the group, and with it every registered model.
    group = sagemaker.CfnModelPackageGroup(scope, "Models", model_package_group_name=settings.name)
    group.apply_removal_policy(settings.removal_policy)
    if settings.removable:
        RegisteredModels(scope, "RegisteredModels", settings=settings, group=group)
    return group


class RegisteredModels(Construct):
    """Deletes every package of `group` when the stack is deleted, and before the group, which must be empty then."""

    def __init__(
        self, scope: Construct, id_: str, *, settings: StageSettings, group: sagemaker.CfnModelPackageGroup
    ) -> None:
        super().__init__(scope, id_)
        unregister = PackageFunction(
            self,
            "Unregister",
            package="unregister",
            settings=settings,
            environment={},
            memory_mib=256,
            timeout_seconds=_TIMEOUT_SECONDS,
            reserved_concurrency=None,
        )
        _allow(unregister.role, settings.name)
        resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::RegisteredModels",
            service_token=unregister.function.function_arn,
            service_timeout=cdk.Duration.minutes(20),  # an hour unless given
            properties={"ModelPackageGroupName": settings.name},
        )
        resource.node.add_dependency(group)


def _allow(role: iam.Role, group: str) -> None:
    stack = cdk.Stack.of(role)
    versions = stack.format_arn(service="sagemaker", resource="model-package", resource_name=f"{group}/*")
    allow(role, ["sagemaker:DeleteModelPackage"], [versions])
    # AWS's reference lists the versions as what a listing concerns; the group is what the request names.
    named = stack.format_arn(service="sagemaker", resource="model-package-group", resource_name=group)
    allow(role, ["sagemaker:ListModelPackages"], [named, versions])
    # A resource that only leaves the template must not take the models with it.
    allow(role, ["cloudformation:DescribeStacks"], [stack.stack_id])
    finding = own("sagemaker", f"model-package/{group}/*")
    acknowledge(role, "A registered model's version is a number that nobody knows before.", finding)
