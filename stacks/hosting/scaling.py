"""How many instances answer."""

import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from stacks.capacity import doubts, read, scaling_target
from stacks.config import HostingSettings, ScheduledCapacity
from stacks.hosting.model import VARIANT

# What each setting tracks. The first is CloudWatch's ConcurrentRequestsPerModel, queued requests included, published
# each 10 s (the second each minute), for real-time variants without inference components. It speeds up growing only:
# shrinking takes the same quarter of an hour with both (Developer Guide, Define a scaling policy).
_METRICS = {
    "concurrency": "SageMakerVariantConcurrentRequestsPerModelHighResolution",
    "invocations": "SageMakerVariantInvocationsPerInstance",  # per minute
}


class EndpointScaling(Construct):
    """Follows the load of an instance. Nothing is registered where there is no room to scale."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        settings: HostingSettings,
        endpoint: sagemaker.CfnEndpoint,
    ) -> None:
        super().__init__(scope, id_)
        if settings.max_instances == settings.min_instances:
            return
        measured = read(settings.instance_type)
        for warning, text in doubts(settings, measured).items():
            cdk.Annotations.of(self).add_warning_v2(warning, text)
        # The L2 target would make a role that nobody assumes: SageMaker's targets use the service-linked one.
        target = scaling.CfnScalableTarget(
            self,
            "Target",
            service_namespace="sagemaker",
            scalable_dimension="sagemaker:variant:DesiredInstanceCount",
            resource_id=f"endpoint/{endpoint.endpoint_name}/variant/{VARIANT}",
            min_capacity=settings.min_instances,
            max_capacity=settings.max_instances,
            scheduled_actions=[_action(number, each) for number, each in enumerate(settings.schedule, 1)] or None,
        )
        target.node.add_dependency(endpoint)
        scaling.CfnScalingPolicy(
            self,
            "Policy",
            policy_name="FollowTheLoad",
            policy_type="TargetTrackingScaling",
            scaling_target_id=target.ref,
            target_tracking_scaling_policy_configuration=_tracking(settings, scaling_target(settings, measured)),
        )


def _tracking(
    settings: HostingSettings, target: float
) -> scaling.CfnScalingPolicy.TargetTrackingScalingPolicyConfigurationProperty:
    return scaling.CfnScalingPolicy.TargetTrackingScalingPolicyConfigurationProperty(
        predefined_metric_specification=scaling.CfnScalingPolicy.PredefinedMetricSpecificationProperty(
            predefined_metric_type=_METRICS[settings.scaling_metric]
        ),
        target_value=target,
        scale_out_cooldown=settings.scale_out_cooldown_seconds,
        scale_in_cooldown=settings.scale_in_cooldown_seconds,
    )


def _action(number: int, each: ScheduledCapacity) -> scaling.CfnScalableTarget.ScheduledActionProperty:
    return scaling.CfnScalableTarget.ScheduledActionProperty(
        scheduled_action_name=f"Schedule{number}",
        schedule=f"cron({each.cron})",
        timezone=each.timezone,
        scalable_target_action=scaling.CfnScalableTarget.ScalableTargetActionProperty(
            min_capacity=each.min_instances, max_capacity=each.max_instances
        ),
    )
