"""The released model, the configuration of the endpoint that serves it, and the endpoint's role."""

from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from stacks.config import HostingSettings, StageSettings
from stacks.data import DataStack
from stacks.images import ImagesStack
from stacks.instance_types import has_nvme_disks, is_gpu
from stacks.network import NetworkStack
from stacks.permissions import (
    acknowledge,
    allow,
    allow_key,
    allow_logs_and_metrics,
    any_object,
    sagemaker_principal,
    wildcard,
)

# The one variant keeps its name: SageMaker's guardrails and scaling refuse an update that changes it.
VARIANT = "AllTraffic"


class ServedModel(Construct):
    """Model and EndpointConfig. Every change but one of tags replaces them, so neither has a name."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        settings: StageSettings,
        package_arn: str,
        approved_at: str,
        role: iam.Role,
        data: DataStack,
        network: NetworkStack | None,
    ) -> None:
        super().__init__(scope, id_)
        container = sagemaker.CfnModel.ContainerDefinitionProperty(
            model_package_name=package_arn, environment=_environment(settings, package_arn, approved_at)
        )
        vpc = None
        if network:
            ids = {"subnets": network.subnet_ids, "security_group_ids": network.group_ids}
            vpc = sagemaker.CfnModel.VpcConfigProperty(**ids)
        model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=role.role_arn,
            primary_container=container,
            enable_network_isolation=True,
            vpc_config=vpc,
        )
        # CreateModel uses the role at once, so its policy must be there first.
        model.node.add_dependency(role)
        on_nvme = has_nvme_disks(settings.hosting.instance_type)  # encrypted by the hardware; key and size are refused
        config = sagemaker.CfnEndpointConfig(
            self,
            "Config",
            production_variants=[_variant(settings.hosting, model.attr_model_name)],
            data_capture_config=_capture(settings.hosting, data),
            kms_key_id=None if on_nvme else data.key.key_arn,
        )
        self.config_name = config.attr_endpoint_config_name


def _environment(settings: StageSettings, package_arn: str, approved_at: str) -> dict[str, str]:
    hosting = settings.hosting
    return {
        "MODEL_PACKAGE_ARN": package_arn,
        # Nobody reads it. It makes a version that is approved once more another Model, so that CloudFormation moves
        # an endpoint to it which serves something else than the stack says.
        "APPROVED_AT": approved_at,
        "ENDPOINT_NAME": settings.name,  # dimension of the server's own metrics
        "RUNTIME": hosting.runtime,
        "PRECISION": hosting.precision,
        **({} if hosting.threads is None else {"THREADS": str(hosting.threads)}),
    }


def _variant(settings: HostingSettings, model_name: str) -> sagemaker.CfnEndpointConfig.ProductionVariantProperty:
    least_outstanding = sagemaker.CfnEndpointConfig.RoutingConfigProperty(
        routing_strategy="LEAST_OUTSTANDING_REQUESTS"  # random routing queues behind slow photos
    )
    return sagemaker.CfnEndpointConfig.ProductionVariantProperty(
        variant_name=VARIANT,
        model_name=model_name,
        instance_type=settings.instance_type,
        initial_instance_count=settings.min_instances,
        initial_variant_weight=1,
        volume_size_in_gb=None if has_nvme_disks(settings.instance_type) else settings.volume_gib,
        routing_config=least_outstanding,
        # CUDA 13, with which today's torch comes, wants a newer driver than the default machine image has.
        inference_ami_version="al2023-ami-sagemaker-inference-gpu-4-1" if is_gpu(settings.instance_type) else None,
    )


def _capture(
    settings: HostingSettings, data: DataStack
) -> sagemaker.CfnEndpointConfig.DataCaptureConfigProperty | None:
    if settings.capture_percent == 0:
        return None
    modes = ("Input", "Output")
    return sagemaker.CfnEndpointConfig.DataCaptureConfigProperty(
        enable_capture=True,
        initial_sampling_percentage=settings.capture_percent,
        destination_s3_uri=data.bucket.s3_url_for_object("capture"),
        kms_key_id=data.key.key_arn,
        capture_options=[sagemaker.CfnEndpointConfig.CaptureOptionProperty(capture_mode=mode) for mode in modes],
        # Answers as readable JSON; photos, whose type is not named here, in base64.
        capture_content_type_header=sagemaker.CfnEndpointConfig.CaptureContentTypeHeaderProperty(
            json_content_types=["application/json"]
        ),
    )


def endpoint_role(
    scope: Construct, *, settings: StageSettings, data: DataStack, images: ImagesStack, network: NetworkStack | None
) -> iam.Role:
    role = iam.Role(scope, "Role", assumed_by=sagemaker_principal(scope), description="Serves the released model")
    images.inference.grant_pull(role)
    _use_data(role, data)
    streams = f"log-group:/aws/sagemaker/Endpoints/{settings.name}:*"
    # Not to create the group, which is this stack's: a late line after the end would bring it back, and stand in the
    # way of the next deployment.
    reason = "Every stream of the endpoint's own log group."
    allow_logs_and_metrics(role, streams, reason, create_group=False)
    if network:
        network.grant_attach(role)
    acknowledge(role, "PutMetricData, EC2's Describe and GetAuthorizationToken know no resource.", wildcard("*"))
    return role


def _use_data(role: iam.Role, data: DataStack) -> None:
    allow(role, ["s3:GetObject"], [data.bucket.arn_for_objects("runs/*")])
    allow(role, ["s3:PutObject"], [data.bucket.arn_for_objects("capture/*")])
    allow_key(role, data.key)
    reason = "The names of artifacts and captures are made by SageMaker."
    acknowledge(role, reason, any_object(data, "runs/"), any_object(data, "capture/"))
