"""The alarms of the embedded CloudWatch: evaluated at the end of each simulated minute, with history and events.

moto stores them. https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html
"""

import json
import operator
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call, Handler, json_answer
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION, client
from kennel.rehearsal.cloud.cloudwatch.metric_math import Points, evaluate
from kennel.rehearsal.cloud.cloudwatch.metrics import Metrics, statistic
from kennel.rehearsal.cloud.events import Publish

Alarm = Mapping[str, Any]  # as DescribeAlarms shows it
_COMPARISONS = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
_SPARE = 2  # periods before those that an alarm needs, whose data stand in for missing ones


class Alarms:
    """Evaluates all alarms. `publish` sends an event to the bus as a service does."""

    def __init__(self, metrics: Metrics, publish: Publish) -> None:
        self._metrics, self._publish = metrics, publish
        self._history: list[dict[str, Any]] = []  # of all alarms, oldest first
        self._minute = 0  # that is being evaluated
        self.rang: list[tuple[int, str]] = []  # simulated minute and alarm, each time that one goes to ALARM

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """Return what answers CloudWatch's operations, by service and operation; moto answers the others."""
        own = {"SetAlarmState": self._set, "DescribeAlarmHistory": self._describe, "PutMetricData": self._put}
        return {("cloudwatch", operation): handler for operation, handler in own.items()}

    def evaluate(self, minute: int) -> None:
        """Put each alarm into the state that follows from the samples up to `minute`, that included."""
        self._minute = minute
        for page in client("cloudwatch").get_paginator("describe_alarms").paginate():
            for alarm in page["MetricAlarms"]:
                points = _points(alarm, self._metrics, minute)
                state = state_of(alarm, points)
                if state is not None and state != alarm["StateValue"]:
                    recent = [point for point in points if point is not None][-alarm["EvaluationPeriods"] :]
                    said = f"{len(recent)} datapoints were evaluated against the threshold {alarm['Threshold']:g}"
                    with suppress(ApiError):  # it was deleted meanwhile
                        self.set_state(alarm["AlarmName"], state, f"{said}: {recent}")

    def set_state(self, name: str, state: str, reason: str) -> None:
        """Change an alarm's state (OK, ALARM or INSUFFICIENT_DATA); raise ApiError where there is no such alarm."""
        backend = cloudwatch_backends[ACCOUNT][REGION]
        if name not in backend.alarms:
            raise ApiError("ResourceNotFound", "", 404)
        alarm = backend.alarms[name]
        before = {"value": alarm.state_value, "reason": alarm.state_reason}
        backend.set_alarm_state(name, reason, "{}", state)
        if before["value"] == state:
            return
        if state == "ALARM":
            self.rang.append((self._minute, name))
        now = datetime.now(UTC)
        self._history.append(
            {
                "AlarmName": name,
                "AlarmType": "MetricAlarm",
                "Timestamp": now,
                "HistoryItemType": "StateUpdate",
                "HistorySummary": f"Alarm updated from {before['value']} to {state}",
                "HistoryData": _data(before["value"], state, reason),
            }
        )
        after = {"value": state, "reason": reason, "timestamp": f"{now:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "+0000"}
        detail = {"alarmName": name, "state": after, "previousState": before}
        self._publish("aws.cloudwatch", "CloudWatch Alarm State Change", detail, [alarm.alarm_arn])

    def _set(self, call: Call) -> Response:
        given = call.parameters
        self.set_state(given["AlarmName"], given["StateValue"], given["StateReason"])
        return json_answer({})

    def _describe(self, call: Call) -> Response:
        """Answer DescribeAlarmHistory, newest first unless ScanBy says otherwise; all items are state updates."""
        given = call.parameters
        begin, end = float(given.get("StartDate", 0)), float(given.get("EndDate", "inf"))
        found = [
            one
            for one in self._history
            if given.get("AlarmName", one["AlarmName"]) == one["AlarmName"]
            and given.get("HistoryItemType", "StateUpdate") == "StateUpdate"
            and begin <= one["Timestamp"].timestamp() <= end
        ]
        ordered = found if given.get("ScanBy") == "TimestampAscending" else found[::-1]
        return json_answer({"AlarmHistoryItems": ordered[: int(given.get("MaxRecords", 100))]})

    def _put(self, call: Call) -> Response:
        """Answer PutMetricData: a time of its own does not matter, the sample falls into the present minute."""
        for datum in call.parameters["MetricData"]:
            dimensions = {one["Name"]: one["Value"] for one in datum.get("Dimensions", [])}
            values = datum.get("Values", [datum.get("Value", 0.0)])
            for value, count in zip(values, datum.get("Counts", [1] * len(values)), strict=True):
                for _ in range(int(count)):
                    unit = datum.get("Unit", "None")
                    self._metrics.put(call.parameters["Namespace"], datum["MetricName"], dimensions, value, unit)
        return json_answer({})


def _data(before: str, after: str, reason: str) -> str:
    states = {"oldState": {"stateValue": before}, "newState": {"stateValue": after, "stateReason": reason}}
    return json.dumps({"version": "1.0", **states})


def _points(alarm: Alarm, metrics: Metrics, minute: int) -> Points:
    """Return the alarm's data points, one for each period that its evaluation may look at, oldest first."""
    periods = int(alarm["EvaluationPeriods"]) + _SPARE
    queries = {one["Id"]: one for one in alarm.get("Metrics", [])}
    if not queries:
        return _of_metric(alarm, alarm.get("Statistic") or alarm["ExtendedStatistic"], metrics, minute, periods)
    series: dict[str, Points] = {}
    for id_, query in queries.items():
        if one := query.get("MetricStat"):
            about = {**one["Metric"], "Period": one["Period"], "Unit": one.get("Unit")}
            series[id_] = _of_metric(about, one["Stat"], metrics, minute, periods)
    waiting = {id_: one["Expression"] for id_, one in queries.items() if one.get("Expression")}
    while waiting:
        series |= (found := {id_: evaluate(text, series) for id_, text in waiting.items() if _is_known(text, waiting)})
        waiting = {id_: text for id_, text in waiting.items() if id_ not in found}
    return next(series[id_] for id_, query in queries.items() if query.get("ReturnData") in (True, None))


def _is_known(expression: str, waiting: Mapping[str, str]) -> bool:
    """Return whether all that `expression` refers to has been evaluated."""
    return not set(re.findall(r"\w+", expression)) & set(waiting)


def _of_metric(about: Mapping[str, Any], name: str, metrics: Metrics, minute: int, periods: int) -> Points:
    minutes = max(1, int(about["Period"]) // 60)
    dimensions = frozenset((one["Name"], one["Value"]) for one in about.get("Dimensions", []))
    series = (about["Namespace"], about["MetricName"], dimensions)
    end = (minute + 1) // minutes * minutes  # of the last whole period
    found: Points = []
    for number in range(periods, 0, -1):
        values = metrics.samples(series, end - number * minutes, minutes, about.get("Unit"))
        found.append(statistic(name, values))
    return found


def state_of(alarm: Alarm, points: Points) -> str | None:
    """Return the state that follows from `points`, or None where it stays as it is.

    As CloudWatch does: where there are enough real points the newest ones count, however old, and only what is
    missing beyond that is treated as TreatMissingData says.
    """
    needed = int(alarm["EvaluationPeriods"])
    to_alarm = int(alarm.get("DatapointsToAlarm") or needed)
    treatment = alarm.get("TreatMissingData") or "missing"
    real = [point for point in points if point is not None][-needed:]
    compare = _COMPARISONS[alarm["ComparisonOperator"]]
    breaching = sum(compare(point, alarm["Threshold"]) for point in real)
    if not real:
        return {"missing": "INSUFFICIENT_DATA", "ignore": None, "breaching": "ALARM"}.get(treatment, "OK")
    if treatment == "breaching":
        breaching += needed - len(real)
    elif treatment in ("missing", "ignore") and len(real) < needed:
        to_alarm = min(to_alarm, len(real))
        if treatment == "ignore" and breaching >= to_alarm:
            return None
    return "ALARM" if breaching >= to_alarm else "OK"
