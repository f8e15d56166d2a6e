"""The language of a pipeline definition: parameters, expressions, conditions, and the order of the steps.

https://aws-sagemaker-mlops.github.io/sagemaker-model-building-pipeline-definition-JSON-schema/
"""

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from kennel.rehearsal.jobs.contract import JobFailed

_TYPES: dict[str, Callable[[str], Any]] = {"String": str, "Integer": int, "Float": float}
_PATH_PART = re.compile(r"\.?([^.\[\]]+)|\[(?:'([^']*)'|\"([^\"]*)\"|(\d+))\]")
# The members by which a list can be indexed.
_NAMES = ("OutputName", "PropertyFileName", "ChannelName", "InputName", "Name", "Key")
_STEP_REFERENCE = re.compile(r"Steps\.([A-Za-z0-9_-]+)")
_BRANCHES = {"IfSteps": True, "ElseSteps": False}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": operator.eq,
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThanOrEqualTo": operator.le,
}


class DefinitionError(JobFailed):
    """The pipeline's definition or its parameters cannot work; the text says which part and why."""


def resolve_parameters(definition: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Return name -> typed value, the default where none is given; raise DefinitionError naming a wrong parameter."""
    declared = {parameter["Name"]: parameter for parameter in definition.get("Parameters", [])}
    if unknown := sorted(set(given) - set(declared)):
        raise DefinitionError(f"Unknown pipeline parameters: {', '.join(unknown)}; known are {', '.join(declared)}.")
    return {name: _parameter(parameter, given.get(name)) for name, parameter in declared.items()}


def _parameter(parameter: Mapping[str, Any], given: str | None) -> Any:
    name, kind, allowed = parameter["Name"], parameter["Type"], parameter.get("EnumValues")
    if kind not in _TYPES:
        raise DefinitionError(f"Parameters of type {kind} cannot be rehearsed; those of type {', '.join(_TYPES)} can.")
    value = parameter["DefaultValue"] if given is None else given
    try:
        value = _TYPES[kind](value)
    except ValueError:
        raise DefinitionError(f"The pipeline parameter {name} must be of type {kind}, not {value!r}.") from None
    if allowed and value not in allowed:
        raise DefinitionError(f"The pipeline parameter {name} must be one of {', '.join(allowed)}, not {value!r}.")
    return value


class Values:
    """The values that expressions refer to: parameters, execution variables, and `properties` of finished steps.

    `read` returns the content of an s3:// file, for Std:JsonGet.
    """

    def __init__(
        self, parameters: Mapping[str, Any], variables: Mapping[str, Any], read: Callable[[str], bytes]
    ) -> None:
        self.properties: dict[str, Mapping[str, Any]] = {}
        self._roots: dict[str, Mapping[str, Any]] = {
            "Parameters": parameters,
            "Execution": variables,
            "Steps": self.properties,
        }
        self._read = read

    def resolve(self, value: Any) -> Any:
        """Return `value` with every expression in it replaced; raise DefinitionError for a name that does not exist."""
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (name, body) = next(iter(value.items()))
            functions: dict[str, Callable[[Any], Any]] = {
                "Get": self._get,
                "Std:Join": self._join,
                "Std:JsonGet": self._json_get,
            }
            if name in functions:
                return functions[name](body)
        return {key: self.resolve(item) for key, item in value.items()}

    def is_true(self, condition: Mapping[str, Any]) -> bool:
        """Evaluate one condition; raise DefinitionError for an unknown type or values that cannot be compared."""
        kind = condition["Type"]
        if kind == "Or":
            return any(self.is_true(inner) for inner in condition["Conditions"])
        if kind not in _COMPARISONS:
            known = ", ".join((*_COMPARISONS, "Or"))
            raise DefinitionError(f"Conditions of type {kind} cannot be rehearsed; those of type {known} can.")
        left, right = self.resolve(condition["LeftValue"]), self.resolve(condition["RightValue"])
        try:
            return _COMPARISONS[kind](left, right)
        except TypeError:
            raise DefinitionError(f"{kind} cannot compare {left!r} with {right!r}.") from None

    def _get(self, path: str) -> Any:
        root, _, rest = path.partition(".")
        if root not in self._roots:
            raise DefinitionError(f"{path!r} begins with none of {', '.join(self._roots)}.")
        return _follow(self._roots[root], rest, path)

    def _join(self, body: Mapping[str, Any]) -> str:
        return str(body["On"]).join(_text(item) for item in self.resolve(body["Values"]))

    def _json_get(self, body: Mapping[str, Any]) -> Any:
        reference = body["PropertyFile"]
        uri = self.resolve(reference if isinstance(reference, dict) else {"Get": reference})["S3Uri"]
        try:
            content = json.loads(self._read(uri))
        except ValueError as error:
            raise DefinitionError(f"The property file {uri} is no JSON: {error}.") from None
        return _follow(content, body["Path"], f"{body['Path']} in {uri}")


def _follow(value: Any, path: str, whole: str) -> Any:
    """Return the member of `value` at `a.b[0]['name']`."""
    position = 0
    while position < len(path):
        match = _PATH_PART.match(path, position)
        if not match:
            raise DefinitionError(f"{whole!r} cannot be read from {path[position:]!r} on.")
        value = _member(value, next(part for part in match.groups() if part is not None), whole)
        position = match.end()
    return value


def _member(value: Any, key: str, whole: str) -> Any:
    if isinstance(value, Mapping) and key in value:
        return value[key]
    if isinstance(value, list):
        if key.isdigit() and int(key) < len(value):
            return value[int(key)]
        for item in value:
            if isinstance(item, Mapping) and key in (item.get(name) for name in _NAMES):
                return item
    known = ", ".join(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
    raise DefinitionError(f"{whole!r} does not exist: no {key!r} in ({known}).")


def _text(value: Any) -> str:
    """Return a value as SageMaker writes it into a string: booleans in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class PlannedStep:
    """One step, the names of the steps that it needs, and the branch (condition step, outcome) that it belongs to."""

    step: Mapping[str, Any]
    branch: tuple[str, bool] | None
    needs: frozenset[str]

    @property
    def name(self) -> str:
        return str(self.step["Name"])


def plan(definition: Mapping[str, Any]) -> list[PlannedStep]:
    """Return all steps, those inside conditions too, each after the steps that it needs, otherwise as written.

    Raise DefinitionError for a name that is used twice, a dependency that does not exist, or a cycle.
    """
    found = list(_flatten(definition.get("Steps", []), None))
    steps = {item.name: item for item in found}
    if len(steps) < len(found):
        names = [item.name for item in found]
        raise DefinitionError(f"Two steps are named {next(name for name in names if names.count(name) > 1)!r}.")
    for item in found:
        if missing := sorted(item.needs - set(steps)):
            raise DefinitionError(f"The step {item.name} depends on {missing[0]}, which does not exist.")
    try:
        order = TopologicalSorter({item.name: sorted(item.needs) for item in found}).static_order()
        return [steps[name] for name in order]
    except CycleError as error:
        raise DefinitionError(f"The steps depend on each other in a cycle: {' -> '.join(error.args[1])}.") from None


def _flatten(steps: Sequence[Mapping[str, Any]], branch: tuple[str, bool] | None) -> Iterator[PlannedStep]:
    for step in steps:
        arguments = step.get("Arguments", {})
        is_condition = step["Type"] == "Condition"
        own = {key: value for key, value in arguments.items() if not (is_condition and key in _BRANCHES)}
        # Also the step names in the plain text of a property file's path.
        needs = {*step.get("DependsOn", []), *_STEP_REFERENCE.findall(json.dumps(own)), *(branch or ())[:1]}
        yield PlannedStep(step, branch, frozenset(needs))
        if is_condition:
            for key, outcome in _BRANCHES.items():
                yield from _flatten(arguments.get(key, []), (step["Name"], outcome))
