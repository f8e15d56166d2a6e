"""Alarms as this system wants them: at or above a threshold, minute by minute, and silence is health."""

from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct


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
