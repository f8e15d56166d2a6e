"""The metrics of the embedded CloudWatch: samples by simulated minute, their statistics, and samples from logs."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from moto.logs.models import logs_backends

from kennel.rehearsal.cloud.api import Call
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION

Series = tuple[str, str, frozenset[tuple[str, str]]]  # namespace, name, dimensions: all three must be the same
Sample = tuple[float, str]  # value and unit
_STATISTICS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "Sum": math.fsum,
    "Average": lambda values: math.fsum(values) / len(values),
    "Minimum": min,
    "Maximum": max,
    "SampleCount": len,
}


class Metrics:
    """All samples. `minute` returns the simulated minute into which new ones fall."""

    def __init__(self, minute: Callable[[], int]) -> None:
        self._minute = minute
        self._samples: dict[Series, dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))

    def put(self, namespace: str, name: str, dimensions: Mapping[str, str], value: float, unit: str = "None") -> None:
        """Publish one sample."""
        series = (namespace, name, frozenset(dimensions.items()))
        self._samples[series][self._minute()].append((value, unit))

    def samples(self, series: Series, first: int, minutes: int, unit: str | None = None) -> list[float]:
        """Return the values of so many minutes from `first` on; with `unit` only those that were published in it."""
        by_minute = self._samples.get(series, {})
        found = [sample for minute in range(first, first + minutes) for sample in by_minute.get(minute, [])]
        return [value for value, own in found if unit is None or own == unit]

    def put_from_logs(self, call: Call) -> None:
        """Publish what the metric filters of a log group find in the lines of PutLogEvents, which moto then answers."""
        given = call.parameters
        for one in logs_backends[ACCOUNT][REGION].describe_metric_filters(log_group_name=given["logGroupName"]):
            member, wanted = _pattern(one["filterPattern"])
            for event in given["logEvents"]:
                line: dict[str, object] = {}
                with suppress(ValueError):  # not JSON
                    line = json.loads(event["message"])
                for metric in one["metricTransformations"] if line.get(member) == wanted else []:
                    paths: dict[str, str] = metric.get("dimensions", {})
                    dimensions = {name: str(line[path.removeprefix("$.")]) for name, path in paths.items()}
                    value = float(metric["metricValue"])
                    self.put(metric["metricNamespace"], metric["metricName"], dimensions, value)


def _pattern(text: str) -> tuple[str, str]:
    """Return the member and the value that a log line must have; raise NotImplementedError for another pattern."""
    found = re.fullmatch(r'\{ \$\.(\w+) = "([^"]*)" \}', text)
    if not found:
        raise NotImplementedError(f"The filter pattern {text!r} is not rehearsed: add it to cloudwatch/metrics.py")
    return found[1], found[2]


def statistic(name: str, values: Sequence[float]) -> float | None:
    """Return a statistic (Sum, Average, p95 ...) of a period's samples, None where there are none."""
    if not values:
        return None
    if name.startswith("p"):  # the sample at that rank; CloudWatch does not say how it interpolates
        ordered = sorted(values)
        return ordered[max(0, math.ceil(float(name[1:]) / 100 * len(ordered)) - 1)]
    if name not in _STATISTICS:
        raise NotImplementedError(f"The statistic {name!r} is not rehearsed: add it to cloudwatch/metrics.py")
    return float(_STATISTICS[name](values))
