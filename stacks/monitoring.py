"""CloudWatch metrics of the endpoint, with thresholds converted to their units, and the form that all alarms have."""

import re
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

_MICROSECONDS = 1000  # in a millisecond
_MINUTE = cdk.Duration.minutes(1)
# InvocationModelErrors counts broken connections, garbage and timeouts as well, as of a container that dies, which
# Invocation5XXErrors does not. It counts 4xx too, which are not the model's fault: photos that nobody can read, and
# the 429 of a server that has too much to do.
_FAILED = "(FILL(failed, 0) - FILL(refused, 0))"


@dataclass(frozen=True, kw_only=True)
class EndpointMetrics:
    """The metrics of one variant of one endpoint, per minute.

    Names are literal: an alarm that took the endpoint's name from the resource would depend on the endpoint,
    which depends on its rollback alarms. With `config_name` the metrics are those of the instances that serve this
    EndpointConfig alone.
    Units: https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
    """

    endpoint_name: str
    variant_name: str
    instance_type: str
    config_name: str = ""

    def count(self, name: str) -> cloudwatch.Metric:
        """Return `Invocations`, `Invocation4XXErrors` and the like as a number per minute."""
        return self._metric("AWS/SageMaker", name, "Sum")

    def model_errors(self) -> cloudwatch.MathExpression:
        """Return how many requests a minute the model failed; no value for minutes without requests."""
        return self._math(f"{_FAILED} + 0 * asked", "requests that the model failed")

    def model_error_percent(self, least: int) -> cloudwatch.MathExpression:
        """Return the share of requests that the model failed, in percent; 0 where they are fewer than `least`."""
        percent = f"100 * {_FAILED} / (asked - FILL(refused, 0))"
        return self._math(f"IF({_FAILED} >= {least}, {percent}, 0 * asked)", "requests that the model failed (%)")

    def model_latency_p95(self) -> cloudwatch.Metric:
        """Return the container's own time, in MICROSECONDS: compare with `latency_threshold`."""
        return self._metric("AWS/SageMaker", "ModelLatency", "p95")

    def cpu(self) -> cloudwatch.Metric:
        """Return the sum over an instance's cores (four cores reach 400): compare with `cpu_threshold`.

        The normalized metric exists only for endpoints with inference components.
        """
        return self._metric("/aws/sagemaker/Endpoints", "CPUUtilization", "Maximum")

    def memory(self) -> cloudwatch.Metric:
        """Return the percentage of an instance's memory in use."""
        return self._metric("/aws/sagemaker/Endpoints", "MemoryUtilization", "Maximum")

    @staticmethod
    def latency_threshold(milliseconds: int) -> int:
        """Return milliseconds in ModelLatency's unit, microseconds."""
        return milliseconds * _MICROSECONDS

    def cpu_threshold(self, percent: int) -> int:
        """Return a percentage of a whole instance in CPUUtilization's unit, percent of one core."""
        return percent * cores(self.instance_type)

    def _math(self, expression: str, label: str) -> cloudwatch.MathExpression:
        """Return an expression on _FAILED and `asked`.

        `asked` is not filled, so that a minute that is not published yet has no value rather than a good one.
        """
        names = {"asked": "Invocations", "failed": "InvocationModelErrors", "refused": "Invocation4XXErrors"}
        return cloudwatch.MathExpression(
            expression=expression,
            label=label,
            using_metrics={id_: self.count(name) for id_, name in names.items()},
            period=_MINUTE,
        )

    def _metric(self, namespace: str, name: str, statistic: str) -> cloudwatch.Metric:
        dimensions = {"EndpointName": self.endpoint_name, "VariantName": self.variant_name}
        if self.config_name:
            dimensions["EndpointConfigName"] = self.config_name
        return cloudwatch.Metric(
            namespace=namespace, metric_name=name, dimensions_map=dimensions, statistic=statistic, period=_MINUTE
        )


def cores(instance_type: str) -> int:
    """Return the vCPUs of a SageMaker instance type, by AWS's rule of sizes: large has 2, xlarge 4, Nxlarge 4N."""
    size = instance_type.rsplit(".", 1)[-1]
    times = re.fullmatch(r"(\d*)xlarge", size)
    return 4 * int(times[1] or 1) if times else 2


_LEAST_REQUESTS = 10  # in a minute: of fewer, the 95th percentile is the slowest one


def where_frequent(p95: cloudwatch.IMetric, asked: cloudwatch.IMetric, label: str) -> cloudwatch.MathExpression:
    """Return a 95th percentile per minute in its own unit, and 0 for minutes with too few requests for one."""
    return cloudwatch.MathExpression(
        expression=f"IF(FILL(asked, 0) >= {_LEAST_REQUESTS}, p95, 0 * p95)",
        label=label,
        using_metrics={"asked": asked, "p95": p95},
        period=_MINUTE,
    )


def alarm(
    scope: Construct, id_: str, metric: cloudwatch.IMetric, *, at: float, minutes: int, means: str
) -> cloudwatch.Alarm:
    """Return an alarm that goes off when `metric` is at or above `at` (its own unit) for `minutes` minutes."""
    return cloudwatch.Alarm(
        scope,
        id_,
        metric=metric,
        threshold=at,
        evaluation_periods=minutes,
        alarm_description=means,
        comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
        # What has no traffic publishes nothing; that must neither wake anybody nor block a deployment.
        treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
    )
