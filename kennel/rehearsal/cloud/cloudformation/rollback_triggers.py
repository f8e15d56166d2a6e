"""CloudFormation's rollback triggers: alarms that it watches during an update and for a time after it.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-rollback-triggers.html
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moto.cloudformation.models import cloudformation_backends
from moto.cloudwatch.models import cloudwatch_backends

from kennel.rehearsal.cloud.api import ApiError, Call
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION
from kennel.rehearsal.cloud.simulated_time import SimulatedTime

_MOST = 5
_ARN = re.compile(r"RollbackConfiguration\.RollbackTriggers\.member\.\d+\.Arn")
_MINUTES = "RollbackConfiguration.MonitoringTimeInMinutes"


class TriggerRang(Exception):
    """A rollback trigger is missing or went into ALARM; the message names it."""


@dataclass(frozen=True)
class RollbackTriggers:
    """The configuration of one stack, which holds until another is given; `rang` grows as alarms go to ALARM."""

    alarms: tuple[str, ...]
    minutes: int
    time: SimulatedTime
    rang: Sequence[tuple[int, str]]  # minute and alarm

    def watch(self) -> Callable[[], None]:
        """Begin to watch, and return what monitors to the end; both raise TriggerRang.

        What an alarm does that is in ALARM already is not documented: here only one that goes there counts.
        """
        missing = [name for name in self.alarms if name not in cloudwatch_backends[ACCOUNT][REGION].alarms]
        if missing:
            raise TriggerRang(f"The rollback trigger {missing[0]} does not exist.")
        first = len(self.rang)

        def rung() -> list[str]:
            return [name for _, name in self.rang[first:] if name in self.alarms]

        def monitor() -> None:
            if not rung():
                self.time.wait(self.minutes * 60, until=lambda: bool(rung()))
            if names := rung():
                raise TriggerRang(f"The rollback trigger {names[0]} went into ALARM.")

        return monitor


def remember_triggers(time: SimulatedTime, rang: Sequence[tuple[int, str]]) -> Callable[[Call], None]:
    """Return what takes the RollbackConfiguration of an UpdateStack call, which moto ignores and then answers."""

    def remember(call: Call) -> None:
        given: Mapping[str, Any] = call.parameters
        arns = [str(value) for key, value in given.items() if _ARN.fullmatch(key)]
        if not any(key.startswith("RollbackConfiguration") for key in given):
            return
        if len(arns) > _MOST:
            raise ApiError("ValidationError", f"RollbackTriggers may hold at most {_MOST} triggers.")
        names = tuple(arn.rpartition(":alarm:")[2] for arn in arns)
        stacks = cloudformation_backends[ACCOUNT][REGION].stacks.values()
        for stack in stacks:
            if given["StackName"] in (stack.name, stack.stack_id):
                triggers = RollbackTriggers(names, int(given.get(_MINUTES, 0)), time, rang)
                stack.rollback_triggers = triggers  # type: ignore[attr-defined]

    return remember
