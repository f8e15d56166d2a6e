"""What holds data and outlives every deployment: the data bucket, its key and the model package group."""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from stacks.config import StageSettings
from stacks.function import PackageFunction
from stacks.permissions import allow, allow_listing_packages, model_packages


class DataStack(cdk.Stack):
    """The stage's `bucket`, its `key`, and `model_package_group_name`."""

    def __init__(self, scope: Construct, id_: str, *, settings: StageSettings) -> None:
        super().__init__(scope, id_, description=f"{settings.name}: data set, artifacts, capture and registered models")
        self.key = kms.Key(
            self,
            "Key",
            description=f"{settings.name}: data set, artifacts, capture and volumes",
            enable_key_rotation=True,
            removal_policy=settings.removal_policy,
        )
        self.bucket = self._bucket(settings)
        group = model_group(self, settings)
        self.model_package_group_name = group.model_package_group_name
        cdk.CfnOutput(self, "DataBucketName", value=self.bucket.bucket_name)
        cdk.CfnOutput(self, "DataKeyArn", value=self.key.key_arn)
        cdk.CfnOutput(self, "ModelPackageGroupName", value=settings.name)

    def grant_approve(self, role: iam.Role) -> None:
        """Allow `role` to read the stage's registered models and to approve or reject them."""
        _, versions = model_packages(role, self.model_package_group_name)
        allow_listing_packages(role)
        allow(role, ["sagemaker:DescribeModelPackage", "sagemaker:UpdateModelPackage"], [versions])

    def _bucket(self, settings: StageSettings) -> s3.Bucket:
        common: dict[str, Any] = {
            "block_public_access": s3.BlockPublicAccess.BLOCK_ALL,
            "enforce_ssl": True,
            "removal_policy": settings.removal_policy,
            "auto_delete_objects": settings.removable,
        }
        access_logs = s3.Bucket(
            self,
            "AccessLogs",
            encryption=s3.BucketEncryption.S3_MANAGED,  # the log service cannot use a customer's key
            lifecycle_rules=[s3.LifecycleRule(id="Expire", expiration=cdk.Duration.days(90))],
            **common,
        )
        bucket = s3.Bucket(
            self,
            "Bucket",
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key,
            bucket_key_enabled=True,
            versioned=True,
            server_access_logs_bucket=access_logs,
            lifecycle_rules=_lifecycle(settings),
            **common,
        )
        # event_bridge_enabled=True would bring a function and a custom resource for one property.
        part = bucket.node.default_child
        assert isinstance(part, s3.CfnBucket)
        part.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
            event_bridge_configuration=s3.CfnBucket.EventBridgeConfigurationProperty(event_bridge_enabled=True)
        )
        return bucket


def _lifecycle(settings: StageSettings) -> list[s3.LifecycleRule]:
    return [
        s3.LifecycleRule(
            id="OldVersions",
            noncurrent_version_expiration=cdk.Duration.days(30),
            abort_incomplete_multipart_upload_after=cdk.Duration.days(7),
            expired_object_delete_marker=True,
        ),
        s3.LifecycleRule(id="Prepared", prefix="prepared/", expiration=cdk.Duration.days(30)),
        s3.LifecycleRule(
            id="Checkpoints", prefix=f"runs/{settings.name}/checkpoints/", expiration=cdk.Duration.days(14)
        ),
        s3.LifecycleRule(id="Capture", prefix="capture/", expiration=cdk.Duration.days(90)),
    ]


_TIMEOUT_SECONDS = 900  # Lambda's longest: SageMaker deletes a few packages a second


def model_group(scope: Construct, settings: StageSettings) -> sagemaker.CfnModelPackageGroup:
    """Return the group; where the stage is removable, also make what empties it before CloudFormation deletes it."""
    # No description: a changed one replaces the group, and with it every registered model.
    group = sagemaker.CfnModelPackageGroup(scope, "Models", model_package_group_name=settings.name)
    group.apply_removal_policy(settings.removal_policy)
    if settings.removable:
        RegisteredModels(scope, "RegisteredModels", settings=settings, group=group)
    return group


class RegisteredModels(Construct):
    """A custom resource: on the stack's deletion it deletes every package of `group`, before the group goes."""

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
    _, versions = model_packages(role, group)
    allow(role, ["sagemaker:DeleteModelPackage"], [versions])
    allow_listing_packages(role)
    # A resource that only leaves the template must not take the models with it.
    allow(role, ["cloudformation:DescribeStacks"], [cdk.Stack.of(role).stack_id])
