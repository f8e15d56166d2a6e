"""One EC2 instance that trains as the pipeline does, and then stops."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.config import StageSettings, WorkbenchSettings
from stacks.data import DataStack
from stacks.images import ImagesStack
from stacks.permissions import acknowledge, allow, any_object, in_account, via_s3, wildcard
from stacks.workbench.user_data import script

# Deep Learning Base AMI with the open Nvidia driver, Docker and the Nvidia container toolkit, on Amazon Linux 2023.
# Resolved at each launch, so a launch always has the newest patches.
_AMI = "resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-amazon-linux-2023/latest/ami-id"
_GRACE_MINUTES = 15  # after the time limit, for the checkpoint and the uploads
_Template = ec2.CfnLaunchTemplate


class Trainer(Construct):
    """The launch template `template_id`; user_data/trainer_run.sh lists the instance tags that say what to train."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        settings: StageSettings,
        data: DataStack,
        images: ImagesStack,
        subnet: ec2.ISubnet,
        security_group: ec2.SecurityGroup,
    ) -> None:
        super().__init__(scope, id_)
        assert settings.workbench is not None
        prefix = f"runs/{settings.name}/ec2"
        role = trainer_role(self, data=data, images=images, prefix=prefix)
        profile = iam.CfnInstanceProfile(self, "Profile", roles=[role.role_name])
        user_data = _user_data(settings.workbench, data, images, prefix)
        template = _Template(
            self,
            "Template",
            # Without it the CLI would skip this stack when only the image's source has changed.
            version_description=f"Source of the training image: {images.training.source[:16]}",
            launch_template_data=_Template.LaunchTemplateDataProperty(
                image_id=_AMI,
                instance_type=settings.workbench.trainer_instance_type,
                iam_instance_profile=_Template.IamInstanceProfileProperty(arn=profile.attr_arn),
                # The run powers the machine off when it ends; this turns that into a stop.
                instance_initiated_shutdown_behavior="stop",
                metadata_options=_metadata_options(),
                block_device_mappings=[_encrypted_disk(settings.workbench.trainer_volume_gib)],
                network_interfaces=[_interface(subnet, security_group)],
                user_data=cdk.Fn.base64(user_data),
                tag_specifications=_names(f"{settings.name}-trainer"),
            ),
        )
        self.template_id = template.ref


def _user_data(settings: WorkbenchSettings, data: DataStack, images: ImagesStack, prefix: str) -> str:
    run_minutes = settings.trainer_max_hours * 60
    return script(
        "trainer_boot.sh",
        TRAIN=script("trainer_run.sh"),
        BUCKET=data.bucket.bucket_name,
        PREFIX=prefix,
        IMAGE=images.training.image_uri,
        REGION=cdk.Aws.REGION,
        RUN_MINUTES=str(run_minutes),
        MAX_MINUTES=str(run_minutes + _GRACE_MINUTES),
    )


def _metadata_options() -> ec2.CfnLaunchTemplate.MetadataOptionsProperty:
    return _Template.MetadataOptionsProperty(
        http_tokens="required",  # IMDSv2 only
        http_put_response_hop_limit=1,  # not from inside a container
        instance_metadata_tags="enabled",  # the run reads its parameters from the instance's tags
    )


def _encrypted_disk(gib: int) -> ec2.CfnLaunchTemplate.BlockDeviceMappingProperty:
    # The account's own EBS key: with the data key every launcher would need permissions on it, and lacking them a
    # launch ends in "Client.InternalError" without a reason.
    disk = _Template.EbsProperty(volume_size=gib, volume_type="gp3", encrypted=True, delete_on_termination=True)
    return _Template.BlockDeviceMappingProperty(device_name="/dev/xvda", ebs=disk)


def _interface(subnet: ec2.ISubnet, group: ec2.SecurityGroup) -> ec2.CfnLaunchTemplate.NetworkInterfaceProperty:
    return _Template.NetworkInterfaceProperty(
        device_index=0,
        subnet_id=subnet.subnet_id,
        groups=[group.security_group_id],
        associate_public_ip_address=False,
        delete_on_termination=True,
    )


def _names(name: str) -> list[ec2.CfnLaunchTemplate.TagSpecificationProperty]:
    tag = cdk.CfnTag(key="Name", value=name)
    return [_Template.TagSpecificationProperty(resource_type=kind, tags=[tag]) for kind in ("instance", "volume")]


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
    written = (any_object(data, "datasets/"), any_object(data, f"{prefix}/"))
    acknowledge(role, "Data sets and runs come and go under their prefix.", *written)
    acknowledge(role, "An instance reports itself, and gets its id at launch.", in_account("ec2", "instance/*"))
    acknowledge(role, "ssmmessages and ECR's GetAuthorizationToken know no resource.", wildcard("*"))
    return role
