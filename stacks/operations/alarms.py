"""The alarms of a running system; each description says what is wrong and where to look."""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks.classify import ClassifyStack
from stacks.config import StageSettings
from stacks.monitoring import EndpointMetrics, alarm, where_frequent
from stacks.operations.observer import Observer
from stacks.pipeline.stack import PipelineStack
from stacks.release import ReleaseStack

_MINUTE = cdk.Duration.minutes(1)
_MEANS = {  # by the alarm's id; `limits` are the stage's OperationsSettings
    "Endpoint4xx": "The endpoint refuses requests: no images, too large ones, or (429) too many. See its log.",
    "Endpoint5xx": "The model fails requests: it answers 5xx, crashes or takes too long. See the endpoint's log.",
    "EndpointLatency": "The model takes over {limits.endpoint_latency_milliseconds} ms (95th percentile).",
    "EndpointSaturation": "An instance has been over {limits.endpoint_cpu_percent} % busy for five minutes: "
    "scaling is too late or at its limit.",
    "ClassifyErrors": "The function crashed or ran out of time: errors that it foresees are answers, not crashes.",
    "ClassifyThrottles": "Callers are turned away: the reserved concurrency is used up.",
    "ClassifyDuration": "The function takes over {limits.classify_duration_milliseconds} ms (95th percentile).",
    "ApiFailures": "The API answers 5xx: no model is released, or the endpoint is down. See its access log.",
    "ClassifySpillover": "Calls find no provisioned instance and start cold for five minutes on end: provision more.",
    "RunNotStarted": "A data set was uploaded and no run began. The queue NotStarted says why; start it by hand.",
    "ReleaseFailed": "An approved model was not released. See the promote function's log and the queue; approve again.",
    "ApprovalNotQueued": "An approval could not be put into its queue. The queue Undelivered says why; approve again.",
    "ReleaseDiverged": "The endpoint serves another configuration than its stack says: SageMaker went back by itself, "
    "unnoticed by CloudFormation. The version before is released again; see `kennel releases`.",
    "ObserverErrors": "What happened to a release was not written down. See the observe function's log.",
}


def all_alarms(
    scope: Construct,
    settings: StageSettings,
    *,
    endpoint: EndpointMetrics,
    classify: ClassifyStack,
    release: ReleaseStack,
    pipeline: PipelineStack,
    observer: Observer,
) -> list[cloudwatch.Alarm]:
    """Return the alarms on endpoint, function and API, on uploads that led to nothing and on releases gone wrong."""
    limits, live = settings.operations, classify.alias
    errors, duration = limits.endpoint_errors_per_minute, limits.classify_duration_milliseconds
    latency = endpoint.latency_threshold(limits.endpoint_latency_milliseconds)
    busy = endpoint.cpu_threshold(limits.endpoint_cpu_percent)
    spilled = live.metric("ProvisionedConcurrencySpilloverInvocations", period=_MINUTE, statistic="Sum")
    slow_model = where_frequent(endpoint.model_latency_p95(), endpoint.count("Invocations"), "model latency, p95 (µs)")
    slow_function = where_frequent(
        live.metric_duration(period=_MINUTE, statistic="p95"),
        live.metric_invocations(period=_MINUTE),
        "duration, p95 (ms)",
    )
    table: list[tuple[str, cloudwatch.IMetric, float, int]] = [  # id, metric, threshold in its unit, minutes
        ("Endpoint4xx", endpoint.count("Invocation4XXErrors"), errors, 5),
        ("Endpoint5xx", endpoint.model_errors(), errors, 1),
        ("EndpointLatency", slow_model, latency, 5),
        ("EndpointSaturation", endpoint.cpu(), busy, 5),
        ("ClassifyErrors", live.metric_errors(period=_MINUTE), 1, 1),
        ("ClassifyThrottles", live.metric_throttles(period=_MINUTE), 1, 1),
        ("ClassifyDuration", slow_function, duration, 5),
        ("ApiFailures", classify.api.metric_server_error(period=_MINUTE, statistic="Sum"), errors, 1),
        *([("ClassifySpillover", spilled, 1, 5)] if settings.classify.provisioned_concurrency else []),
        ("RunNotStarted", _waiting(pipeline.not_started), 1, 1),
        ("ReleaseFailed", _waiting(release.dead_letters), 1, 1),
        ("ApprovalNotQueued", _waiting(release.undelivered), 1, 1),
        ("ReleaseDiverged", observer.diverged, 1, 1),
        ("ObserverErrors", observer.function.metric_errors(period=_MINUTE), 1, 1),
    ]
    return [
        alarm(scope, id_, metric, at=at, minutes=minutes, means=_MEANS[id_].format(limits=limits))
        for id_, metric, at, minutes in table
    ]


def _waiting(queue: sqs.Queue) -> cloudwatch.Metric:
    return queue.metric_approximate_number_of_messages_visible(period=_MINUTE, statistic="Maximum")
