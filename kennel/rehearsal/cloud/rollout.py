"""The way of a release: the new one beside the old one, its share of traffic, and back if an alarm rings.

As SageMaker's deployment guardrails do it with fleets and CodeDeploy with versions of a function, in simulated time:
https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-blue-green.html
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from moto.cloudwatch.models import cloudwatch_backends

from kennel.rehearsal.cloud.api import ApiError
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION, client
from kennel.rehearsal.cloud.simulated_time import SimulatedTime


@dataclass(frozen=True)
class Policy:
    """What a DeploymentConfig says; without one all traffic moves at once and nothing is waited for.

    `steps`: the share of the new one, and the seconds of the bake that follows. `instances`: of a new fleet.
    """

    steps: tuple[tuple[float, int], ...] = ((1.0, 0),)
    termination_wait_seconds: int = 0
    alarms: tuple[str, ...] = ()
    instances: int = 1

    @classmethod
    def of(cls, config: Mapping[str, Any], instances: int) -> Self:
        """Return the policy for a fleet of so many instances; raise ApiError for a kind that is not rehearsed."""
        if "RollingUpdatePolicy" in config:
            raise ApiError("ValidationException", "RollingUpdatePolicy is not rehearsed: add it to cloud/rollout.py")
        update = config.get("BlueGreenUpdatePolicy", {})
        routing = update.get("TrafficRoutingConfiguration", {})
        step = _share(routing.get("CanarySize") or routing.get("LinearStepSize"), instances)
        shares = {
            "CANARY": (step, 1.0),
            "LINEAR": tuple(min(1.0, number * step) for number in range(1, math.ceil(1 / step) + 1)),
        }.get(routing.get("Type", ""), (1.0,))
        alarms = config.get("AutoRollbackConfiguration", {}).get("Alarms", [])
        bake = int(routing.get("WaitIntervalInSeconds", 0)) if len(shares) > 1 else 0
        return cls(
            tuple((share, bake) for share in shares),
            int(update.get("TerminationWaitInSeconds", 0)),
            tuple(one["AlarmName"] for one in alarms),
            instances,
        )


def _share(size: Mapping[str, Any] | None, instances: int) -> float:
    if size is None:
        return 1.0
    return float(size["Value"]) / (100 if size["Type"] == "CAPACITY_PERCENT" else instances)


def check_alarms(names: Sequence[str], role_arn: str, code: str) -> None:
    """Raise ApiError with `code` where the role may not see the alarms that are to roll back, or one is missing."""
    if not names:
        return
    try:
        found = client("cloudwatch", role_arn).describe_alarms(AlarmNames=[*names])["MetricAlarms"]
    except ClientError as error:
        raise ApiError(code, f"The alarms that are to roll back cannot be read: {error}") from error
    if missing := sorted({*names} - {one["AlarmName"] for one in found}):
        raise ApiError(code, f"Could not find the alarms {', '.join(missing)}.")


class Rollout:
    """One release, from `old` to `new`, the names of two configurations or versions.

    `start` brings the new one up, or raises; `route` takes the shares of both by name, and what it does not name ends.
    `tell(status, message)` is called with each status of an endpoint's variant: Creating, ActivatingTraffic, Baking.
    """

    def __init__(
        self,
        old: str,
        new: str,
        policy: Policy,
        *,
        start: Callable[[], object],
        route: Callable[[Mapping[str, float]], object],
        time: SimulatedTime,
        tell: Callable[[str, str], object] = lambda _status, _message: None,
    ) -> None:
        self._old, self._new, self._policy = old, new, policy
        self._start, self._route, self._time, self._tell = start, route, time, tell

    def run(self) -> bool:
        """Return True when the new one serves alone, False after an alarm's rollback; raise when it cannot start."""
        self._tell("Creating", "")
        self._start()
        for share, seconds in self._policy.steps:
            self._tell("ActivatingTraffic", "")
            self._route({self._old: 1.0 - share, self._new: share})
            if self._bake(share, seconds, "WaitIntervalInSeconds"):
                return False
        if self._bake(1.0, self._policy.termination_wait_seconds, "TerminationWaitInSeconds"):
            return False
        self._route({self._new: 1.0})
        return True

    def _bake(self, share: float, seconds: int, setting: str) -> bool:
        """Wait; return True when an alarm has rung and the old one has all traffic again."""
        if not seconds:
            return False
        active = math.ceil(share * self._policy.instances)
        kind = "canary" if share < 1 else "full"
        message = f"Baking for {seconds} seconds ({setting}) with traffic enabled on {kind} capacity of "
        self._tell("Baking", f"{message}{active} instance(s).")
        if not self._time.wait(seconds, until=self._has_alarm):
            return False
        self._route({self._old: 1.0})
        return True

    def _has_alarm(self) -> bool:
        alarms = cloudwatch_backends[ACCOUNT][REGION].alarms
        return any(name in alarms and alarms[name].state_value == "ALARM" for name in self._policy.alarms)
