"""How a new model takes over, and what takes it back."""

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from stacks.alarms import alarm
from stacks.config import CanarySettings, HostingSettings
from stacks.hosting.metrics import EndpointMetrics

_SETTLING_SECONDS = 300  # the old fleet stays this long after the shift, for a rollback without a cold start
_STARTING_SECONDS = 3600  # what starting a second fleet may take at most


def deployment_config(
    scope: Construct, settings: HostingSettings, metrics: EndpointMetrics
) -> sagemaker.CfnEndpoint.DeploymentConfigProperty | None:
    """Blue/green with a canary that alarms take back; None (all traffic at once) where there is no canary."""
    canary = settings.canary
    if canary is None:
        return None
    alarms = [
        sagemaker.CfnEndpoint.AlarmProperty(alarm_name=each.alarm_name)
        for each in _rollback_alarms(scope, canary, metrics)
    ]
    return sagemaker.CfnEndpoint.DeploymentConfigProperty(
        blue_green_update_policy=_policy(canary),
        auto_rollback_configuration=sagemaker.CfnEndpoint.AutoRollbackConfigProperty(alarms=alarms),
    )


def _policy(canary: CanarySettings) -> sagemaker.CfnEndpoint.BlueGreenUpdatePolicyProperty:
    first = sagemaker.CfnEndpoint.CapacitySizeProperty(type="CAPACITY_PERCENT", value=canary.percent)
    return sagemaker.CfnEndpoint.BlueGreenUpdatePolicyProperty(
        traffic_routing_configuration=sagemaker.CfnEndpoint.TrafficRoutingConfigProperty(
            type="CANARY", canary_size=first, wait_interval_in_seconds=canary.bake_seconds
        ),
        termination_wait_in_seconds=_SETTLING_SECONDS,
        maximum_execution_timeout_in_seconds=canary.bake_seconds + _SETTLING_SECONDS + _STARTING_SECONDS,
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
