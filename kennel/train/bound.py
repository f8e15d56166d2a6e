"""The most that a pipeline run can cost, from its definition and its parameters alone."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kennel.errors import KennelError
from kennel.prices import Prices
from kennel.rehearsal.jobs.events import DefinitionError
from kennel.rehearsal.jobs.language import PlannedStep, Values, plan, resolve_parameters

_DAY = 86_400  # seconds: a job's limit where it names none
_EXPRESSIONS = {"Get", "Std:Join", "Std:JsonGet"}
_Unknown = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """A step's job at its longest: `seconds` on each of `instances`, `copies` times (the trials of a tuning job)."""

    step: str
    instance_type: str
    instances: int
    seconds: int
    copies: int = 1

    @property
    def instance_seconds(self) -> int:
        return self.seconds * self.instances * self.copies

    def cost(self, prices: Prices) -> float | None:
        return prices.cost(self.instance_type, self.instances * self.copies, self.seconds)


def typed(definition: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """The parameters with their defaults; raises KennelError for one that is unknown, missing or not allowed."""
    try:
        return resolve_parameters(definition, given)
    except DefinitionError as error:
        raise KennelError(str(error)) from None


def longest_jobs(definition: Mapping[str, Any], values: Mapping[str, Any], prices: Prices) -> list[Job]:
    """The jobs of the dearest way through the pipeline.

    What only a step will know (the mode that Prepare finds) is tried with each value that a condition compares it
    with. A job of unknown price counts as dearer than any other.
    """
    known = Values(values, {}, _no_file)
    steps = plan(definition)
    conditions = {one.name: one.step["Arguments"]["Conditions"] for one in steps if one.step["Type"] == "Condition"}
    guards = {one.branch[0] for one in steps if one.branch and _holds_jobs(one)}
    candidates: dict[str, set[Any]] = {}
    for name in guards:
        _collect(conditions[name], known, candidates)
    ways = []
    for chosen in itertools.product(*candidates.values()):
        world = dict(zip(candidates, chosen, strict=True))
        ways.append([_job(one, known) for one in steps if _holds_jobs(one) and _may_run(one, conditions, known, world)])
    return max(ways, key=lambda jobs: _rank(jobs, prices))


def _rank(jobs: list[Job], prices: Prices) -> tuple[int, float, int]:
    costs = [job.cost(prices) for job in jobs]
    return costs.count(None), sum(cost or 0.0 for cost in costs), sum(job.instance_seconds for job in jobs)


def _holds_jobs(planned: PlannedStep) -> bool:
    return planned.step["Type"] in ("Processing", "Training", "Tuning")


def _job(planned: PlannedStep, known: Values) -> Job:
    arguments, copies = planned.step["Arguments"], 1
    if planned.step["Type"] == "Tuning":
        limits = arguments["HyperParameterTuningJobConfig"]["ResourceLimits"]
        copies = int(known.resolve(limits["MaxNumberOfTrainingJobs"]))
        arguments = arguments["TrainingJobDefinition"]
    cluster = arguments.get("ResourceConfig") or arguments["ProcessingResources"]["ClusterConfig"]
    limit = arguments.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", _DAY)
    instances = int(known.resolve(cluster.get("InstanceCount", 1)))
    return Job(planned.name, str(known.resolve(cluster["InstanceType"])), instances, int(known.resolve(limit)), copies)


def _may_run(planned: PlannedStep, conditions: Mapping[str, Any], known: Values, world: Mapping[str, Any]) -> bool:
    if planned.branch is None:
        return True
    name, outcome = planned.branch
    try:
        happens = all(known.is_true(_filled(one, known, world)) for one in conditions[name])
    except DefinitionError:
        return True  # an order between things that only the run will know
    return happens == outcome


def _collect(value: Any, known: Values, candidates: dict[str, set[Any]]) -> None:
    """Note for each expression that is not known yet what it is compared with, and that it may be none of that."""
    for left, right in _comparisons(value):
        for side, other in ((left, right), (right, left)):
            if _is_unknown(side, known):
                values = candidates.setdefault(_key(side), {None})
                if not _is_unknown(other, known):
                    values.add(known.resolve(other))


def _comparisons(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict) and "LeftValue" in value:
        yield value["LeftValue"], value["RightValue"]
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _comparisons(inner)


def _filled(value: Any, known: Values, world: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_filled(inner, known, world) for inner in value]
    if not isinstance(value, dict):
        return value
    if _is_unknown(value, known):
        return world.get(_key(value))
    return {name: _filled(inner, known, world) for name, inner in value.items()}


def _is_unknown(value: Any, known: Values) -> bool:
    if not (isinstance(value, dict) and len(value) == 1 and _EXPRESSIONS & set(value)):
        return False
    try:
        known.resolve(value)
    except DefinitionError:
        return True
    return False


def _key(value: _Unknown) -> str:
    return json.dumps(value, sort_keys=True)


def _no_file(uri: str) -> bytes:
    raise DefinitionError(f"{uri} is written by the run.")
