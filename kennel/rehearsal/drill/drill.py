"""Bad models released through a stage's synthesized settings: whether, when and why each is rolled back.

The embedded AWS runs the stack update and the endpoint's deployment in simulated time; the servers are real.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kennel.assembly import stacks_of
from kennel.errors import KennelError
from kennel.rehearsal.cloud.cloudformation.types.sagemaker import HANDLER
from kennel.rehearsal.cloud.deployment import deploy
from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.drill.callers import TRAFFIC, Callers, Traffic, of_endpoint
from kennel.rehearsal.drill.models import MODELS, Released, pictures
from kennel.rehearsal.drill.stage import Fleets, Packages
from kennel.rehearsal.session import wait_for

_LONGEST_S = 3600  # of a release, in real time


@dataclass(frozen=True)
class Net:
    """What may roll back: SageMaker's alarms, CloudFormation's triggers; and whether the latter notices the former."""

    name: str
    guardrails: bool = True
    triggers: bool = True
    notices: bool = True


BOTH, SAGEMAKER = Net("both"), Net("SageMaker", triggers=False)
NETS = (
    BOTH,
    SAGEMAKER,
    Net("CloudFormation", guardrails=False),
    Net("both, unnoticed", notices=False),
    Net("SageMaker, unnoticed", triggers=False, notices=False),
)


@dataclass(frozen=True)
class Outcome:
    """`minutes` is simulated: from the new fleet's first share of the traffic until it has none; `by` rolled it back.

    `stack` is CloudFormation's last word. Of the callers' `requests` in these minutes some `failed` (a wrong label,
    too), or were told that the servers are `busy`.
    """

    model: str
    traffic: str
    old: str
    net: str
    bad: bool
    rolled_back: bool
    minutes: int
    by: str
    stack: str
    requests: int
    failed: int
    busy: int

    @property
    def is_right(self) -> bool:
        return self.bad == self.rolled_back


@dataclass(frozen=True)
class Case:
    """One release: a model in place of a `healthy` or a `broken` fleet, or a function in front of one; at some traffic,
    behind some nets."""

    released: Released
    traffic: Traffic
    old: str = "healthy"
    net: Net = BOTH

    def has_names(self, names: Sequence[str]) -> bool:
        """Return whether each of `names` is one of what is released, the traffic's, the old fleet's or the nets'."""
        return {*names} <= {*self.released.names, self.traffic.name, self.old, self.net.name}

    def outcome(self, callers: Callers, minutes: tuple[int, int], *, stack: str, by: str | None) -> Outcome:
        """Return what became of it between the first and the last of `minutes`; `by` is None where it stayed."""
        counts, (first, last) = callers.between(*minutes), minutes
        return Outcome(
            model=self.released.name,
            traffic=self.traffic.name,
            old=self.old,
            net=self.net.name,
            bad=self.released.is_bad,
            rolled_back=by is not None,
            minutes=last - first,
            by=by or "",
            stack=stack,
            requests=counts["requests"],
            failed=counts["failed"],
            busy=counts["busy"],
        )


def all_cases() -> Iterator[Case]:
    """Yield every model at every traffic in place of both fleets; and, in a normal hour, behind each net by itself.

    CloudFormation by itself lets a bad model serve for an hour. Of one that keeps its callers waiting that takes a
    quarter of an hour here, and shows nothing else.
    """
    quick = [model for model in MODELS if model.name not in ("slow", "hang")]
    for old in ("healthy", "broken"):
        for traffic in TRAFFIC:
            yield from (Case(model, traffic, old) for model in MODELS)
    for net in NETS[1:]:
        yield from (Case(model, TRAFFIC[1], net=net) for model in (MODELS if net.guardrails else quick))


class Drill:
    """A stage that is deployed in an embedded AWS, for one case after the other."""

    def __init__(self, cloud: Cloud, fleets: Fleets, assembly: Path, stage: str, work: Path) -> None:
        self.cloud, self._fleets = cloud, fleets
        deployed = self.deployed = deploy(cloud, assembly, stage)
        self._stack = deployed.name("Hosting")
        self._template = next(one for one in stacks_of(assembly, stage) if one.name == self._stack).read()
        if "DeploymentConfig" not in _endpoint_of(self._template):
            raise KennelError(f"{stage} has no canary, so nothing rolls a release back there.")
        self._endpoint = deployed.of("Hosting")["EndpointName"]
        self._packages = Packages(cloud, deployed, work)
        _disable_rules(cloud)
        self._old = ""
        invoke = cloud.client("sagemaker-runtime").invoke_endpoint
        self._callers = Callers(of_endpoint(invoke, self._endpoint), pictures(), cloud.time)

    def run(self, case: Case) -> Outcome:
        """Release the case's model; raise KennelError when the embedded AWS itself fails."""
        self.serve(case.old)
        self._callers.traffic = case.traffic
        self._fleets.shifts.clear()
        HANDLER.notices_rollback = case.net.notices
        before = self._describe()["EndpointConfigName"]
        # A version of its own: the same model again would be no update.
        status, reason = self._release(self._packages.register(case.released.name), case.net)
        went_back = self._describe()["EndpointConfigName"] == before
        # What CloudFormation takes for the served model, right or wrong, is what it would go back to.
        self._old = self._old if status.startswith("UPDATE_ROLLBACK") else "" if went_back else case.released.name
        minutes = self._minutes_of_the_new_fleet(before)
        by = self._reason(minutes[0], reason) if went_back else None
        return case.outcome(self._callers, minutes, stack=status, by=by)

    def _minutes_of_the_new_fleet(self, before: str) -> tuple[int, int]:
        """Return when it got its first request and when its last; `before` names the configuration of the old one."""
        shifts = self._fleets.shifts
        first = next((minute for minute, shares in shifts if len(shares) > 1), self.cloud.time.minute)
        ended = [minute for minute, shares in shifts if [*shares] == [before]]
        return first, max([first, *(ended[-1:] or [self.cloud.time.minute])])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._callers.close()
        HANDLER.notices_rollback = True

    def serve(self, old: str) -> None:
        """Let a good or a broken model serve, which nobody asks: at once, without a canary and without alarms."""
        self._callers.traffic = TRAFFIC[0]
        wanted = MODELS[-1].name if old == "healthy" else MODELS[0].name
        if self._old == wanted:
            return
        HANDLER.notices_rollback = True
        package = self._packages.register(wanted)
        # Then the settings again, to which CloudFormation goes back; without triggers, which a broken fleet would ring.
        for net in (None, SAGEMAKER):
            status, reason = self._release(package, net)
            if status != "UPDATE_COMPLETE":
                raise KennelError(f"The fleet before the drill could not be started: {reason}")
        self._old = wanted

    def _describe(self) -> dict[str, Any]:
        return dict(self.cloud.client("sagemaker").describe_endpoint(EndpointName=self._endpoint))

    def _release(self, package: str, net: Net | None) -> tuple[str, str]:
        """Update the hosting stack as the promote function does; return its last status and the reason."""
        template, triggers = _with_net(self._template, net), {"RollbackConfiguration": self._triggers(net)}
        status, reason = self.update(self._stack, template, {"ModelPackageArn": package}, **triggers)
        return status, reason or self._describe().get("FailureReason", "")

    def update(
        self, stack: str, template: Mapping[str, Any], parameters: Mapping[str, str] | None = None, **more: Any
    ) -> tuple[str, str]:
        """Update a stack, whose other parameters stay; return its last status and the reason."""
        cloudformation = self.cloud.client("cloudformation")
        known = cloudformation.describe_stacks(StackName=stack)["Stacks"][0].get("Parameters", [])
        own = {name for name, one in template.get("Parameters", {}).items() if one["Type"] == "String"}
        given = {one["ParameterKey"]: one["ParameterValue"] for one in known if one["ParameterKey"] in own}
        given |= parameters or {}
        cloudformation.update_stack(
            StackName=stack,
            TemplateBody=json.dumps(template),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
            Capabilities=["CAPABILITY_IAM"],
            **more,
        )

        def ended() -> Any:
            about = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
            return None if about["StackStatus"].endswith("IN_PROGRESS") else about

        about = wait_for("The end of the stack update", ended, [], seconds=_LONGEST_S)
        return about["StackStatus"], about.get("StackStatusReason", "")

    def _triggers(self, net: Net | None) -> dict[str, Any]:
        """Return the RollbackConfiguration: the alarms that are SageMaker's too, for as long as the canary bakes."""
        if net is None or not net.triggers:
            return {"RollbackTriggers": [], "MonitoringTimeInMinutes": 0}
        config = _endpoint_of(self._template)["DeploymentConfig"]
        bake = config["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["WaitIntervalInSeconds"]
        wanted = [one["AlarmName"]["Ref"] for one in config["AutoRollbackConfiguration"]["Alarms"]]
        alarms = self.cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
        arns = [alarm["AlarmArn"] for alarm in alarms if any(f"-{id_}-" in alarm["AlarmName"] for id_ in wanted)]
        triggers = [{"Arn": arn, "Type": "AWS::CloudWatch::Alarm"} for arn in arns]
        return {"RollbackTriggers": triggers, "MonitoringTimeInMinutes": bake // 60}

    def _reason(self, first: int, reason: str) -> str:
        """Return the stack's alarm that rang first since minute `first`, by its construct id, or why nothing started.

        Raise KennelError for any other reason: then the embedded AWS has refused the update.
        """
        if found := self.alarm_since(first):
            return found
        if not any(said in reason for said in ("health check", "extract")):
            raise KennelError(f"The release was neither served nor rolled back by an alarm: {reason}")
        return "at the start"

    def alarm_since(self, first: int) -> str:
        """Return the rollback alarm that rang first since minute `first`, by its construct id; empty: none did."""
        for minute, name in self.cloud.alarms.rang:
            if minute >= first and (found := re.search(r"-(Rollback[A-Za-z]+?)[0-9A-F]{8}-", name)):
                return found[1]
        return ""


def _disable_rules(cloud: Cloud) -> None:
    """Let no event of the drill set anything off: it updates the stack itself. Schedules go on."""
    events = cloud.client("events")
    for rule in events.list_rules()["Rules"]:
        if "EventPattern" in rule:
            events.disable_rule(Name=rule["Name"])


def _endpoint_of(template: Mapping[str, Any]) -> dict[str, Any]:
    [found] = [one["Properties"] for one in template["Resources"].values() if one["Type"] == "AWS::SageMaker::Endpoint"]
    return dict(found)


def _with_net(template: dict[str, Any], net: Net | None) -> dict[str, Any]:
    """Return the template with SageMaker's alarms only where `net` has them; without a net traffic moves at once."""
    if net is not None and net.guardrails:
        return template
    copy: dict[str, Any] = json.loads(json.dumps(template))
    for one in copy["Resources"].values():
        if one["Type"] == "AWS::SageMaker::Endpoint":
            config = one["Properties"]["DeploymentConfig"]
            del config["AutoRollbackConfiguration"]
            if net is None:
                del one["Properties"]["DeploymentConfig"]
    return copy
