"""The CloudWatch dashboard: alarms, the function's calls and durations, the endpoint's load."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from stacks.classify import ClassifyStack
from stacks.config import StageSettings
from stacks.hosting.stack import HostingStack

_MINUTE = cdk.Duration.minutes(1)
_HALF = 12  # of the 24 columns


def dashboard(
    scope: Construct,
    settings: StageSettings,
    hosting: HostingStack,
    classify: ClassifyStack,
    alarms: Sequence[cloudwatch.Alarm],
) -> cloudwatch.Dashboard:
    """Return the dashboard: alarms on top, then what callers see, then the endpoint."""
    board = cloudwatch.Dashboard(scope, "Dashboard", default_interval=cdk.Duration.hours(12))
    board.add_widgets(cloudwatch.AlarmStatusWidget(title=f"Alarms of {settings.name}", alarms=list(alarms), width=24))
    board.add_widgets(*_callers(classify))
    board.add_widgets(*_endpoint(hosting))
    return board


def _callers(classify: ClassifyStack) -> list[cloudwatch.IWidget]:
    live = classify.alias
    calls = [live.metric_invocations(period=_MINUTE)]
    failures = [
        live.metric_errors(period=_MINUTE),
        live.metric_throttles(period=_MINUTE),
        classify.api.metric_client_error(period=_MINUTE, statistic="Sum"),
        classify.api.metric_server_error(period=_MINUTE, statistic="Sum"),
    ]
    durations = [live.metric_duration(period=_MINUTE, statistic=each) for each in ("p50", "p95", "p99")]
    return [
        _graph("Calls and failures (per minute)", calls, failures),
        _graph("Function's duration (ms)", durations),
    ]


def _endpoint(hosting: HostingStack) -> list[cloudwatch.IWidget]:
    metrics = hosting.metrics
    answers = [metrics.count("Invocations"), metrics.count("InvocationsPerInstance")]
    failures: list[cloudwatch.IMetric] = [metrics.count("Invocation4XXErrors"), metrics.model_errors()]
    return [
        _graph("Endpoint: invocations and errors (per minute)", answers, failures),
        _graph("Endpoint: model latency, p95 (µs)", [metrics.model_latency_p95()]),
        _graph("Endpoint: CPU (% of one core) and memory (%)", [metrics.cpu()], [metrics.memory()]),
    ]


def _graph(
    title: str, left: Sequence[cloudwatch.IMetric], right: Sequence[cloudwatch.IMetric] = ()
) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(title=title, left=list(left), right=list(right), width=_HALF)
