"""The way of an endpoint's update: a new fleet beside the old one, its share of traffic, and back if an alarm rings.

As SageMaker's deployment guardrails do it, in simulated time:
https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-blue-green.html
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from moto.cloudwatch.models import cloudwatch_backends

from kennel.rehearsal.cloud.api import ApiError
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION
from kennel.rehearsal.cloud.simulated_time import SimulatedTime
from kennel.rehearsal.interfaces import DataPlane, Deployment

# Until a new fleet is healthy. AWS names no figure, reports begin at some minutes; meanwhile alarms that now look at
# this fleet find no data, whatever they said of the one before.
_START_SECONDS = 180


@dataclass(frozen=True)
class Policy:
    """What a DeploymentConfig says; without one all traffic moves at once and nothing is waited for.

    `shares`: of the new fleet, after each step, which is followed by a bake.
    """

    shares: tuple[float, ...] = (1.0,)
    bake_seconds: int = 0
    termination_wait_seconds: int = 0
    alarms: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Mapping[str, Any], instances: int) -> Self:
        """Return the policy for a fleet of so many instances; raise ApiError for a kind that is not rehearsed."""
        if "RollingUpdatePolicy" in config:
            raise ApiError(
                "ValidationException", "RollingUpdatePolicy is not rehearsed: add it to sagemaker/rollout.py"
            )
        update = config.get("BlueGreenUpdatePolicy", {})
        routing = update.get("TrafficRoutingConfiguration", {})
        step = _share(routing.get("CanarySize") or routing.get("LinearStepSize"), instances)
        shares = {
            "CANARY": (step, 1.0),
            "LINEAR": tuple(min(1.0, number * step) for number in range(1, math.ceil(1 / step) + 1)),
        }.get(routing.get("Type", ""), (1.0,))
        alarms = config.get("AutoRollbackConfiguration", {}).get("Alarms", [])
        return cls(
            shares,
            int(routing.get("WaitIntervalInSeconds", 0)) if len(shares) > 1 else 0,
            int(update.get("TerminationWaitInSeconds", 0)),
            tuple(one["AlarmName"] for one in alarms),
        )


def _share(size: Mapping[str, Any] | None, instances: int) -> float:
    if size is None:
        return 1.0
    return float(size["Value"]) / (100 if size["Type"] == "CAPACITY_PERCENT" else instances)


class Rollout:
    """One update, from the fleet of configuration `old` to that of `new`.

    `tell(status, message)` is called with each status of the variant: Creating, ActivatingTraffic, Baking.
    """

    def __init__(
        self,
        old: str,
        new: Deployment,
        policy: Policy,
        *,
        data_plane: DataPlane,
        time: SimulatedTime,
        tell: Callable[[str, str], object],
    ) -> None:
        self._old, self._new, self._policy = old, new, policy
        self._data_plane, self._time, self._tell = data_plane, time, tell

    def run(self) -> bool:
        """Return True when the new fleet serves alone, False after an alarm's rollback; raise when it cannot start."""
        self._tell("Creating", "")
        self._data_plane.deploy_endpoint(self._new)
        self._time.wait(_START_SECONDS)
        for share in self._policy.shares:
            self._shift(share)
            if self._bake(share, self._policy.bake_seconds, "WaitIntervalInSeconds"):
                return False
        if self._bake(1.0, self._policy.termination_wait_seconds, "TerminationWaitInSeconds"):
            return False
        self._route({self._new.config: 1.0})
        return True

    def _shift(self, share: float) -> None:
        self._tell("ActivatingTraffic", "")
        self._route({self._old: 1.0 - share, self._new.config: share})

    def _bake(self, share: float, seconds: int, setting: str) -> bool:
        """Wait; return True when an alarm has rung and the old fleet has all traffic again."""
        if not seconds:
            return False
        active = math.ceil(share * self._new.instance_count)
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

    def _route(self, shares: Mapping[str, float]) -> None:
        self._data_plane.route_endpoint(self._new.endpoint, shares)
