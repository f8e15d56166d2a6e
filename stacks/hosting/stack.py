"""The endpoint as CloudFormation resources, so that a release is a stack update, and how a release rolls out."""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from stacks.config import CanarySettings, HostingSettings, StageSettings
from stacks.data import DataStack
from stacks.hosting.model import VARIANT, ServedModel, endpoint_role
from stacks.hosting.scaling import EndpointScaling
from stacks.images import ImagesStack
from stacks.monitoring import EndpointMetrics, alarm
from stacks.network import NetworkStack
from stacks.permissions import allow


class HostingStack(cdk.Stack):
    """One endpoint under one literal name; before the first release the condition leaves it out.

    A release sets the one parameter and leaves the template as it is. CloudFormation then replaces Model and
    EndpointConfig, which therefore have no names, and moves the endpoint, which keeps its own.

    SageMaker refuses to change the instance type of a variant that is registered for scaling. So deploy first with
    `max_instances` equal to `min_instances`, which takes the registration away, then with the new type, then with
    the old `max_instances`.
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        settings: StageSettings,
        data: DataStack,
        images: ImagesStack,
        network: NetworkStack | None,
    ) -> None:
        # Whoever updates a stack must be allowed to read each SSM parameter that the stack takes. Without the
        # bootstrap version (the CLI checks it anyway) the promote function needs no such permission. The price:
        # this stack can have no assets.
        super().__init__(
            scope,
            id_,
            description=f"{settings.name}: the endpoint of the released model",
            synthesizer=cdk.DefaultStackSynthesizer(generate_bootstrap_version_rule=False),
        )
        self.endpoint_name = settings.name
        self.metrics = EndpointMetrics(
            endpoint_name=settings.name, variant_name=VARIANT, instance_type=settings.hosting.instance_type
        )
        package = self._model_package_parameter(settings.name)
        role = endpoint_role(self, settings=settings, data=data, images=images, network=network)
        model = ServedModel(
            self,
            "Served",
            settings=settings,
            package_arn=package.value_as_string,
            role=role,
            data=data,
            network=network,
        )
        endpoint = self._endpoint(settings, model)
        endpoint.node.add_dependency(self._log_group(settings))
        EndpointScaling(self, "Scaling", settings=settings.hosting, endpoint=endpoint)
        self._only_with_a_model(package)
        cdk.CfnOutput(self, "EndpointName", value=self.endpoint_name)

    @property
    def endpoint_arn(self) -> str:
        """Return the ARN of the endpoint, whether it exists yet or not."""
        return self.format_arn(service="sagemaker", resource="endpoint", resource_name=self.endpoint_name)

    def grant_invoke(self, role: iam.Role) -> None:
        """Allow `role` to invoke this endpoint."""
        allow(role, ["sagemaker:InvokeEndpoint"], [self.endpoint_arn])

    def grant_describe(self, role: iam.Role) -> None:
        """Allow `role` to read the endpoint's state."""
        allow(role, ["sagemaker:DescribeEndpoint"], [self.endpoint_arn])

    def grant_release(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow `grantee` to update this stack and to read its state.

        No iam:PassRole: CloudFormation goes on using the role that the stack was deployed with, and asks the
        caller for nothing but the stack itself (API reference, UpdateStack, RoleARN).
        """
        # A stack's ARN ends in an id that changes when the stack is made anew; its name is unique in the account.
        stack = self.format_arn(service="cloudformation", resource="stack", resource_name=f"{self.stack_name}/*")
        actions = ["cloudformation:UpdateStack", "cloudformation:DescribeStacks"]
        return iam.Grant.add_to_principal(grantee=grantee, actions=actions, resource_arns=[stack])

    def _endpoint(self, settings: StageSettings, model: ServedModel) -> sagemaker.CfnEndpoint:
        return sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=self.endpoint_name,
            endpoint_config_name=model.config_name,
            deployment_config=deployment_config(self, settings.hosting, self.metrics),
            # Otherwise each deployment puts the number of instances back to what the configuration began with.
            retain_all_variant_properties=True,
        )

    def _model_package_parameter(self, group: str) -> cdk.CfnParameter:
        return cdk.CfnParameter(
            self,
            "ModelPackageArn",
            default="",
            allowed_pattern=f"(arn:[a-z-]+:sagemaker:[a-z0-9-]+:[0-9]{{12}}:model-package/{group}/[0-9]+)?",
            constraint_description=f"must be empty or the ARN of a model package in the group {group}",
            description="The approved model package that is served; set by the promote function, empty: no endpoint.",
        )

    def _log_group(self, settings: StageSettings) -> logs.LogGroup:
        # SageMaker would make this group itself and keep it for ever. It is removed with the stack in every stage:
        # kept under this literal name it would stand in the way of the next deployment.
        return logs.LogGroup(
            self,
            "Logs",
            log_group_name=f"/aws/sagemaker/Endpoints/{self.endpoint_name}",
            retention=settings.log_retention,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )

    def _only_with_a_model(self, package: cdk.CfnParameter) -> None:
        no_package = cdk.Fn.condition_equals(package.value_as_string, "")
        condition = cdk.CfnCondition(self, "HasModel", expression=cdk.Fn.condition_not(no_package))
        conditional = ("AWS::SageMaker::", "AWS::ApplicationAutoScaling::", "AWS::CloudWatch::")
        for child in self.node.find_all():
            if isinstance(child, cdk.CfnResource) and child.cfn_resource_type.startswith(conditional):
                child.cfn_options.condition = condition


_SETTLING_SECONDS = 300  # the old fleet stays this long after the shift, for a rollback without a cold start
_STARTING_SECONDS = 3600  # what starting a second fleet may take at most


def deployment_config(
    scope: Construct, settings: HostingSettings, metrics: EndpointMetrics
) -> sagemaker.CfnEndpoint.DeploymentConfigProperty | None:
    """Return blue/green with a canary that alarms roll back; None (all traffic at once) where there is no canary."""
    canary = settings.canary
    if canary is None:
        return None
    alarms = [
        sagemaker.CfnEndpoint.AlarmProperty(alarm_name=each.alarm_name)
        for each in _rollback_alarms(scope, canary, metrics)
    ]
    first = sagemaker.CfnEndpoint.CapacitySizeProperty(type="CAPACITY_PERCENT", value=canary.percent)
    policy = sagemaker.CfnEndpoint.BlueGreenUpdatePolicyProperty(
        traffic_routing_configuration=sagemaker.CfnEndpoint.TrafficRoutingConfigProperty(
            type="CANARY", canary_size=first, wait_interval_in_seconds=canary.bake_seconds
        ),
        termination_wait_in_seconds=_SETTLING_SECONDS,
        maximum_execution_timeout_in_seconds=canary.bake_seconds + _SETTLING_SECONDS + _STARTING_SECONDS,
    )
    return sagemaker.CfnEndpoint.DeploymentConfigProperty(
        blue_green_update_policy=policy,
        auto_rollback_configuration=sagemaker.CfnEndpoint.AutoRollbackConfigProperty(alarms=alarms),
    )


def _rollback_alarms(scope: Construct, canary: CanarySettings, metrics: EndpointMetrics) -> list[cloudwatch.Alarm]:
    # Refused photos (4xx) are the callers' doing and roll nothing back.
    return [
        alarm(
            scope,
            "RollbackErrors",
            metrics.count("Invocation5XXErrors"),
            at=canary.rollback_errors_per_minute,
            minutes=1,
            means="The new model fails: SageMaker puts the old one back.",
        ),
        alarm(
            scope,
            "RollbackLatency",
            metrics.model_latency_p95(),
            at=metrics.latency_threshold(canary.rollback_latency_milliseconds),
            minutes=2,
            means="The new model is too slow: SageMaker puts the old one back.",
        ),
    ]
