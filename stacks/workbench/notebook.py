"""A notebook that operates the stage: no internet, no root, stopped when nobody uses it."""

import json
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3_assets as assets
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from stacks.classify import ClassifyStack
from stacks.config import WorkbenchSettings
from stacks.data import DataStack
from stacks.hosting.stack import HostingStack
from stacks.permissions import acknowledge, allow, any_object, in_account, sagemaker_principal, via_s3
from stacks.pipeline.stack import PipelineStack
from stacks.workbench.user_data import script

_READ = ("datasets/", "prepared/", "runs/", "photos/", "capture/")
_WRITE = ("datasets/", "photos/")
_LOGS = "log-group:/aws/sagemaker/NotebookInstances:*"
_SOURCES = Path(__file__).parents[2] / "notebooks"
_Instance = sagemaker.CfnNotebookInstance


class Notebook(Construct):
    """A SageMaker notebook instance in the VPC; `name` is its name."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        settings: WorkbenchSettings,
        data: DataStack,
        pipeline: PipelineStack,
        hosting: HostingStack,
        classify: ClassifyStack,
        subnet: ec2.ISubnet,
        security_group: ec2.SecurityGroup,
    ) -> None:
        super().__init__(scope, id_)
        role = _role(self, data)
        data.grant_approve(role)
        pipeline.grant_operate(role)
        hosting.grant_invoke(role)
        hosting.grant_describe(role)
        classify.grant_invoke(role)
        names = {
            "DataBucketName": data.bucket.bucket_name,
            "ModelPackageGroupName": data.model_package_group_name,
            "PipelineName": pipeline.pipeline_name,
            "EndpointName": hosting.endpoint_name,
            "FunctionAliasArn": classify.alias.function_arn,
        }
        lifecycle = _at_start(self, role, settings.notebook_idle_minutes, names)
        instance = _Instance(
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
            instance_metadata_service_configuration=_Instance.InstanceMetadataServiceConfigurationProperty(
                minimum_instance_metadata_service_version="2"
            ),
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


def _at_start(
    scope: Construct, role: iam.Role, idle_minutes: int, names: dict[str, str]
) -> sagemaker.CfnNotebookInstanceLifecycleConfig:
    """Return what runs at each start: the check that stops an idle instance, and the copy of notebooks/."""
    copied = {}
    for name in ("operate.ipynb", "requirements.txt"):
        asset = assets.Asset(scope, name.split(".")[0].capitalize(), path=str(_SOURCES / name))
        allow(role, ["s3:GetObject"], [asset.bucket.arn_for_objects(asset.s3_object_key)])
        copied[name] = asset.s3_object_url
    text = script(
        "notebook_start.sh",
        IDLE=script("notebook_idle.py"),
        IDLE_MINUTES=str(idle_minutes),
        STAGE=json.dumps(names, indent=1),
        NOTEBOOK=copied["operate.ipynb"],
        REQUIREMENTS=copied["requirements.txt"],
    )
    hook = sagemaker.CfnNotebookInstanceLifecycleConfig.NotebookInstanceLifecycleHookProperty(
        content=cdk.Fn.base64(text)
    )
    return sagemaker.CfnNotebookInstanceLifecycleConfig(scope, "StopWhenIdle", on_start=[hook])


def _role(scope: Construct, data: DataStack) -> iam.Role:
    role = iam.Role(scope, "Role", assumed_by=sagemaker_principal(scope), description="Explores the stage's data")
    allow(role, ["s3:ListBucket"], [data.bucket.bucket_arn])
    allow(role, ["s3:GetObject"], [data.bucket.arn_for_objects(f"{prefix}*") for prefix in _READ])
    allow(role, ["s3:PutObject"], [data.bucket.arn_for_objects(f"{prefix}*") for prefix in _WRITE])
    allow(role, ["kms:Decrypt", "kms:GenerateDataKey"], [data.key.key_arn], via_s3())
    log_group = cdk.Stack.of(scope).format_arn(service="logs", resource=_LOGS)
    actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    allow(role, actions, [log_group])
    acknowledge(role, "Whoever explores reads every run.", *(any_object(data, prefix) for prefix in _READ))
    acknowledge(role, "SageMaker keeps the logs of all notebooks in one group.", in_account("logs", _LOGS))
    return role
