"""The endpoint as CloudFormation resources, so that a release is a stack update."""

from dataclasses import replace

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.hosting.model import VARIANT, ServedModel, endpoint_role
from stacks.hosting.rollout import ROLLBACK, deployment_config, rollback_alarms
from stacks.hosting.scaling import EndpointScaling
from stacks.images import ImagesStack
from stacks.monitoring import EndpointMetrics
from stacks.network import NetworkStack
from stacks.permissions import acknowledge, allow, any_object, in_account, model_packages, via_s3

_RUNS = "runs/"  # where the pipeline's jobs leave their results


class HostingStack(cdk.Stack):
    """One endpoint under one literal name; before the first release the condition leaves it out.

    A release sets the parameters and leaves the template as it is. CloudFormation then replaces Model and
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
        approved_at = self._approval_parameter()
        role = endpoint_role(self, settings=settings, data=data, images=images, network=network)
        model = ServedModel(
            self,
            "Served",
            settings=settings,
            package_arn=package.value_as_string,
            approved_at=approved_at.value_as_string,
            role=role,
            data=data,
            network=network,
        )
        self.rollback_alarms = self._rollback_alarms(settings, model, role, package.value_as_string)
        endpoint = self._endpoint(settings, model)
        endpoint.node.add_dependency(self._log_group(settings))
        EndpointScaling(self, "Scaling", settings=settings.hosting, endpoint=endpoint)
        with_a_model = self._only_with_a_model(package)
        cdk.CfnOutput(self, "EndpointName", value=self.endpoint_name)
        if self.rollback_alarms:
            arns = ",".join(each.alarm_arn for each in self.rollback_alarms)
            cdk.CfnOutput(self, "RollbackAlarmArns", value=arns, condition=with_a_model)

    @property
    def endpoint_arn(self) -> str:
        """Return the ARN of the endpoint, whether it exists yet or not."""
        return self.format_arn(service="sagemaker", resource="endpoint", resource_name=self.endpoint_name)

    def grant_invoke(self, role: iam.Role) -> None:
        allow(role, ["sagemaker:InvokeEndpoint"], [self.endpoint_arn])

    def grant_describe(self, role: iam.Role) -> None:
        allow(role, ["sagemaker:DescribeEndpoint"], [self.endpoint_arn])

    def grant_probe(self, role: iam.Role, data: DataStack) -> None:
        """Allow `role` to learn which model is released, to read its probes and to ask the endpoint."""
        self._allow_stack(role, "cloudformation:DescribeStacks")
        self.grant_invoke(role)
        _, versions = model_packages(role, data.model_package_group_name)
        allow(role, ["sagemaker:DescribeModelPackage"], [versions])
        allow(role, ["s3:GetObject"], [data.bucket.arn_for_objects(f"{_RUNS}*")])
        allow(role, ["kms:Decrypt"], [data.key.key_arn], via_s3())
        acknowledge(role, "Probes lie beside the evaluation of a run, whose name is made.", any_object(data, _RUNS))

    def grant_release(self, role: iam.Role) -> None:
        """Allow `role` to update this stack, to read its state and that of its rollback alarms.

        No iam:PassRole: CloudFormation goes on using the role that the stack was deployed with, and asks the
        caller for nothing but the stack itself (API reference, UpdateStack, RoleARN).
        """
        self._allow_stack(role, "cloudformation:UpdateStack", "cloudformation:DescribeStacks")
        if self.rollback_alarms:
            self._allow_rollback_alarms(role, "cloudwatch:DescribeAlarms")

    def grant_observe(self, role: iam.Role) -> None:
        """Allow `role` to read what became of a release: this stack, its events, the endpoint, its alarms' history."""
        reads = ("DescribeStackEvents", "DescribeStackResources", "DescribeStacks")
        self._allow_stack(role, *(f"cloudformation:{each}" for each in reads))
        self.grant_describe(role)
        self._allow_rollback_alarms(role, "cloudwatch:DescribeAlarmHistory")

    @property
    def rollback_alarm_prefix(self) -> str:
        """Return how the names of the rollback alarms begin, which CloudFormation ends as it likes."""
        return f"{self.stack_name}-{ROLLBACK}"

    def _allow_stack(self, role: iam.Role, *actions: str) -> None:
        name = f"{self.stack_name}/*"
        allow(role, [*actions], [self.format_arn(service="cloudformation", resource="stack", resource_name=name)])
        reason = "The id at the end of a stack's ARN changes when the stack is made anew; the name before it is unique."
        acknowledge(role, reason, in_account("cloudformation", f"stack/{name}"))

    def _allow_rollback_alarms(self, role: iam.Role, action: str) -> None:
        # Not by the alarms' own ARNs: before the first release there are none, and the policy is there.
        names = f"alarm:{self.rollback_alarm_prefix}*"
        allow(role, [action], [self.format_arn(service="cloudwatch", resource=names)])
        acknowledge(role, "CloudFormation ends the alarms' names as it likes.", in_account("cloudwatch", names))

    def _rollback_alarms(
        self, settings: StageSettings, model: ServedModel, role: iam.Role, package_arn: str
    ) -> list[cloudwatch.Alarm]:
        if settings.hosting.canary is None:
            return []
        # SageMaker looks at the alarms as the endpoint's role (Developer Guide, Auto-Rollback Configuration).
        self._allow_rollback_alarms(role, "cloudwatch:DescribeAlarms")
        new_fleet = replace(self.metrics, config_name=model.config_name)
        return rollback_alarms(self, settings.hosting.canary, new_fleet, package_arn)

    def _endpoint(self, settings: StageSettings, model: ServedModel) -> sagemaker.CfnEndpoint:
        canary, scales = settings.hosting.canary, settings.hosting.max_instances > settings.hosting.min_instances
        return sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=self.endpoint_name,
            endpoint_config_name=model.config_name,
            deployment_config=deployment_config(canary, self.rollback_alarms) if canary else None,
            # Otherwise each deployment puts the number of instances back to what the configuration began with. Where
            # nothing scales it, the configuration's number is the one that is wanted.
            retain_all_variant_properties=True if scales else None,
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

    def _approval_parameter(self) -> cdk.CfnParameter:
        return cdk.CfnParameter(
            self,
            "ApprovedAt",
            default="",
            allowed_pattern=r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z)?",
            constraint_description="must be empty or a time in UTC such as 2026-11-30T16:30:00.000Z",
            description="When the approval was given that led to this release; promote ignores older ones.",
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

    def _only_with_a_model(self, package: cdk.CfnParameter) -> cdk.CfnCondition:
        no_package = cdk.Fn.condition_equals(package.value_as_string, "")
        condition = cdk.CfnCondition(self, "HasModel", expression=cdk.Fn.condition_not(no_package))
        conditional = ("AWS::SageMaker::", "AWS::ApplicationAutoScaling::", "AWS::CloudWatch::")
        for child in self.node.find_all():
            if isinstance(child, cdk.CfnResource) and child.cfn_resource_type.startswith(conditional):
                child.cfn_options.condition = condition
        return condition
