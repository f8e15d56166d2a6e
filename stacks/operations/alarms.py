"""The alarms of a running system; each description says what is wrong and where to look."""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from stacks.classify import ClassifyStack
from stacks.config import OperationsSettings, StageSettings
from stacks.monitoring import EndpointMetrics, alarm
from stacks.release import ReleaseStack

_MINUTE = cdk.Duration.minutes(1)


def endpoint_alarms(
    scope: Construct, settings: OperationsSettings, endpoint: EndpointMetrics
) -> list[cloudwatch.Alarm]:
    """Return the alarms on the endpoint's 4xx and 5xx errors, latency and saturation."""
    errors = settings.endpoint_errors_per_minute
    latency = settings.endpoint_latency_milliseconds
    return [
        alarm(
            scope,
            "Endpoint4xx",
            endpoint.count("Invocation4XXErrors"),
            at=errors,
            minutes=5,
            means="The endpoint refuses requests: callers send no images, or too large ones. See its log group.",
        ),
        alarm(
            scope,
            "Endpoint5xx",
            endpoint.count("Invocation5XXErrors"),
            at=errors,
            minutes=1,
            means="The endpoint fails. See its log group.",
        ),
        alarm(
            scope,
            "EndpointLatency",
            endpoint.model_latency_p95(),
            at=endpoint.latency_threshold(latency),
            minutes=5,
            means=f"The model takes over {latency} ms (95th percentile).",
        ),
        _saturation(scope, settings.endpoint_cpu_percent, endpoint),
    ]


def classify_alarms(scope: Construct, settings: StageSettings, classify: ClassifyStack) -> list[cloudwatch.Alarm]:
    """Return the alarms on the function's crashes, throttles, duration and spillover, and on its API's 5xx."""
    live = classify.alias
    limit = settings.operations.classify_duration_milliseconds
    alarms = [
        alarm(
            scope,
            "ClassifyErrors",
            live.metric_errors(period=_MINUTE),
            at=1,
            minutes=1,
            means="The function crashed or ran out of time: errors that it foresees are answers, not crashes.",
        ),
        alarm(
            scope,
            "ClassifyThrottles",
            live.metric_throttles(period=_MINUTE),
            at=1,
            minutes=1,
            means="Callers are turned away: the reserved concurrency is used up.",
        ),
        alarm(
            scope,
            "ClassifyDuration",
            live.metric_duration(period=_MINUTE, statistic="p95"),
            at=limit,
            minutes=5,
            means=f"The function takes over {limit} ms (95th percentile).",
        ),
        _api_failures(scope, settings.operations.endpoint_errors_per_minute, classify),
    ]
    if settings.classify.provisioned_concurrency:
        alarms.append(_spillover(scope, classify))
    return alarms


def release_alarms(scope: Construct, release: ReleaseStack) -> list[cloudwatch.Alarm]:
    """Return the alarm on approvals that were not released."""
    waiting = release.dead_letters.metric_approximate_number_of_messages_visible(period=_MINUTE, statistic="Maximum")
    means = "An approved model was not released. See the promote function's log and the queue; approve again."
    return [alarm(scope, "ReleaseFailed", waiting, at=1, minutes=1, means=means)]


def _saturation(scope: Construct, percent: int, endpoint: EndpointMetrics) -> cloudwatch.Alarm:
    means = f"An instance has been over {percent} % busy for five minutes: scaling is too late or at its limit."
    return alarm(
        scope, "EndpointSaturation", endpoint.cpu(), at=endpoint.cpu_threshold(percent), minutes=5, means=means
    )


def _api_failures(scope: Construct, errors: int, classify: ClassifyStack) -> cloudwatch.Alarm:
    failures = classify.api.metric_server_error(period=_MINUTE, statistic="Sum")
    means = "The API answers 5xx: no model is released, or the endpoint is down. See its access log."
    return alarm(scope, "ApiFailures", failures, at=errors, minutes=1, means=means)


def _spillover(scope: Construct, classify: ClassifyStack) -> cloudwatch.Alarm:
    spilled = classify.alias.metric("ProvisionedConcurrencySpilloverInvocations", period=_MINUTE, statistic="Sum")
    means = "Calls find no provisioned instance and start cold for five minutes on end: provision more."
    return alarm(scope, "ClassifySpillover", spilled, at=1, minutes=5, means=means)
