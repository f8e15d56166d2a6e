"""A notebook on the stage's data: no internet, no root, stopped when nobody uses it."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from stacks.config import WorkbenchSettings
from stacks.data import DataStack
from stacks.permissions import acknowledge, allow, any_object, in_account, sagemaker_principal, via_s3
from stacks.workbench.user_data import script

_READ = ("datasets/", "prepared/", "runs/", "photos/", "capture/")
_WRITE = ("datasets/", "photos/")
_LOGS = "log-group:/aws/sagemaker/NotebookInstances:*"


class Notebook(Construct):
    """A SageMaker notebook instance in the VPC; `name` is its name."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        settings: WorkbenchSettings,
        data: DataStack,
        subnet: ec2.ISubnet,
        security_group: ec2.SecurityGroup,
    ) -> None:
        super().__init__(scope, id_)
        role = _role(self, data)
        lifecycle = _stop_when_idle(self, settings.notebook_idle_minutes)
        instance = sagemaker.CfnNotebookInstance(
            self,
            "Instance",
            instance_type=settings.notebook_instance_type,
            platform_identifier="notebook-al2023-v1",
            role_arn=role.role_arn,
            subnet_id=subnet.subnet_id,
            security_group_ids=[security_group.security_group_id],
            direct_internet_access="Disabled",
            root_access="Disabled",
            kms_key_id=data.key.key_arn,
            volume_size_in_gb=settings.notebook_volume_gib,
            lifecycle_config_name=lifecycle.attr_notebook_instance_lifecycle_config_name,
            instance_metadata_service_configuration=_imds_v2(),
        )
        self.name = instance.attr_notebook_instance_name
        # Ref of a notebook instance is its ARN. A policy of its own: within the role's default policy this would be
        # waited for by whatever waits for the role.
        iam.Policy(
            self,
            "StopItself",
            roles=[role],
            statements=[iam.PolicyStatement(actions=["sagemaker:StopNotebookInstance"], resources=[instance.ref])],
        )


def _stop_when_idle(scope: Construct, minutes: int) -> sagemaker.CfnNotebookInstanceLifecycleConfig:
    text = script("notebook_start.sh", IDLE=script("notebook_idle.py"), IDLE_MINUTES=str(minutes))
    hook = sagemaker.CfnNotebookInstanceLifecycleConfig.NotebookInstanceLifecycleHookProperty(
        content=cdk.Fn.base64(text)
    )
    return sagemaker.CfnNotebookInstanceLifecycleConfig(scope, "StopWhenIdle", on_start=[hook])


def _imds_v2() -> sagemaker.CfnNotebookInstance.InstanceMetadataServiceConfigurationProperty:
    return sagemaker.CfnNotebookInstance.InstanceMetadataServiceConfigurationProperty(
        minimum_instance_metadata_service_version="2"
    )


def _role(scope: Construct, data: DataStack) -> iam.Role:
    role = iam.Role(scope, "Role", assumed_by=sagemaker_principal(scope), description="Explores the stage's data")
    allow(role, ["s3:ListBucket"], [data.bucket.bucket_arn])
    allow(role, ["s3:GetObject"], [data.bucket.arn_for_objects(f"{prefix}*") for prefix in _READ])
    allow(role, ["s3:PutObject"], [data.bucket.arn_for_objects(f"{prefix}*") for prefix in _WRITE])
    allow(role, ["kms:Decrypt", "kms:GenerateDataKey"], [data.key.key_arn], via_s3())
    log_group = cdk.Stack.of(scope).format_arn(service="logs", resource=_LOGS)
    allow(role, ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], [log_group])
    acknowledge(role, "Whoever explores reads every run.", *(any_object(data, prefix) for prefix in _READ))
    acknowledge(role, "SageMaker keeps the logs of all notebooks in one group.", in_account("logs", _LOGS))
    return role
