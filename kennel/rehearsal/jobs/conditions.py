"""The comparisons of a Condition step."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from kennel.rehearsal.jobs.events import DefinitionError
from kennel.rehearsal.jobs.language import Values

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": operator.eq,
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}


def holds(condition: Mapping[str, Any], values: Values) -> bool:
    """Whether one condition is true; raises DefinitionError for an unknown kind or values that do not compare."""
    kind = condition["Type"]
    if kind == "Not":
        return not holds(condition["Expression"], values)
    if kind == "Or":
        return any(holds(inner, values) for inner in condition["Conditions"])
    if kind == "And":
        return all(holds(inner, values) for inner in condition["Conditions"])
    if kind == "In":
        return bool(values.resolve(condition["QueryValue"]) in values.resolve(condition["Values"]))
    if kind not in _COMPARISONS:
        known = ", ".join((*_COMPARISONS, "In", "Not", "Or", "And"))
        raise DefinitionError(f"Unknown condition {kind!r}; known are {known}.")
    return _compare(kind, values.resolve(condition["LeftValue"]), values.resolve(condition["RightValue"]))


def _compare(kind: str, left: Any, right: Any) -> bool:
    try:
        return _COMPARISONS[kind](left, right)
    except TypeError:
        raise DefinitionError(f"{kind} cannot compare {left!r} with {right!r}.") from None
