"""CloudWatch's alarms: what moto lacks of them, the history of their states and the event of each change."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call, Handler, json_answer
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION

Publish = Callable[[str, str, dict[str, Any], list[str]], object]


class Alarms:
    """The alarms of the embedded AWS. `publish` takes the event of each change."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._history: list[dict[str, Any]] = []  # of all alarms, oldest first

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """Return what answers CloudWatch's operations, by service and operation; moto answers the others."""
        return {("cloudwatch", "SetAlarmState"): self._set, ("cloudwatch", "DescribeAlarmHistory"): self._describe}

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


def _data(before: str, after: str, reason: str) -> str:
    states = {"oldState": {"stateValue": before}, "newState": {"stateValue": after, "stateReason": reason}}
    return json.dumps({"version": "1.0", **states})
