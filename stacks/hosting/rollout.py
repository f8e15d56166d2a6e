"""How a release rolls out: a canary, and the alarms on the new fleet that take it back."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from stacks.config import CanarySettings
from stacks.monitoring import EndpointMetrics, alarm, where_frequent

# How the alarms' ids, and so their generated names, begin after the stack's name: policies name them by it.
ROLLBACK = "Rollback"
METRICS = "Kennel/Release"  # the namespace of what the probes find
_SETTLING_SECONDS = 300  # the old fleet stays this long after the shift, for a rollback without a cold start
_STARTING_SECONDS = 3600  # what starting a second fleet may take at most
_LEAST_ERRORS = 3  # fewer in a minute do not tell a bad model from bad luck
_LEAST_ANSWERS = 10  # to probes in a minute
_WRONG_PERCENT = 10  # of the answers to probes, which are photos that the evaluated model was sure of


def longest_update_seconds(canary: CanarySettings | None) -> int:
    """Return how long the update of the endpoint may take before SageMaker gives it up."""
    return _STARTING_SECONDS + (canary.bake_seconds + _SETTLING_SECONDS if canary else 0)


def deployment_config(
    canary: CanarySettings, alarms: Sequence[cloudwatch.Alarm]
) -> sagemaker.CfnEndpoint.DeploymentConfigProperty:
    """Return blue/green with a canary that the alarms roll back."""
    first = sagemaker.CfnEndpoint.CapacitySizeProperty(type="CAPACITY_PERCENT", value=canary.percent)
    policy = sagemaker.CfnEndpoint.BlueGreenUpdatePolicyProperty(
        traffic_routing_configuration=sagemaker.CfnEndpoint.TrafficRoutingConfigProperty(
            type="CANARY", canary_size=first, wait_interval_in_seconds=canary.bake_seconds
        ),
        termination_wait_in_seconds=_SETTLING_SECONDS,
        maximum_execution_timeout_in_seconds=longest_update_seconds(canary),
    )
    named = [sagemaker.CfnEndpoint.AlarmProperty(alarm_name=each.alarm_name) for each in alarms]
    return sagemaker.CfnEndpoint.DeploymentConfigProperty(
        blue_green_update_policy=policy,
        auto_rollback_configuration=sagemaker.CfnEndpoint.AutoRollbackConfigProperty(alarms=named),
    )


def rollback_alarms(
    scope: Construct, canary: CanarySettings, new_fleet: EndpointMetrics, package_arn: str
) -> list[cloudwatch.Alarm]:
    """Return the alarms on the metrics of the new fleet alone, and on what the new model answers to the probes.

    A failing old fleet must not stop the release that mends it, so `new_fleet` has the configuration's dimension.
    """
    return [
        alarm(
            scope,
            f"{ROLLBACK}Errors",
            new_fleet.model_error_percent(_LEAST_ERRORS),
            at=canary.rollback_error_percent,
            minutes=1,
            means="The new model fails: SageMaker and CloudFormation put the old one back.",
        ),
        alarm(
            scope,
            f"{ROLLBACK}Latency",
            where_frequent(new_fleet.model_latency_p95(), new_fleet.count("Invocations"), "model latency, p95 (µs)"),
            at=new_fleet.latency_threshold(canary.rollback_latency_milliseconds),
            minutes=2,
            means="The new model is too slow: SageMaker and CloudFormation put the old one back.",
        ),
        alarm(
            scope,
            f"{ROLLBACK}Answers",
            _wrong_percent(package_arn),
            at=_WRONG_PERCENT,
            minutes=1,
            means="The new model answers otherwise than when it was evaluated: the old one is put back.",
        ),
    ]


def _wrong_percent(package_arn: str) -> cloudwatch.MathExpression:
    """Return the share of the probes that the new model answers wrongly, in percent; 0 where they are too few."""

    def wrong(statistic: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=METRICS,
            metric_name="WrongAnswers",
            dimensions_map={"ModelPackage": package_arn},
            statistic=statistic,
            period=cdk.Duration.minutes(1),
        )

    return cloudwatch.MathExpression(
        expression=f"IF(FILL(answers, 0) >= {_LEAST_ANSWERS}, wrong, 0 * wrong)",
        label="probes answered wrongly (%)",
        using_metrics={"answers": wrong("SampleCount"), "wrong": wrong("Average")},
        period=cdk.Duration.minutes(1),
    )
