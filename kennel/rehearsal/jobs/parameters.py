"""The parameters of an execution: declared types, defaults and allowed values against what the caller gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kennel.rehearsal.jobs.events import DefinitionError

_TRUTH = {"true": True, "false": False}


def resolve_parameters(definition: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Name -> typed value; raises DefinitionError naming the parameter that is missing, unknown or wrong."""
    declared = {parameter["Name"]: parameter for parameter in definition.get("Parameters", [])}
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise DefinitionError(f"Unknown pipeline parameters: {', '.join(unknown)}; known are {', '.join(declared)}.")
    return {name: _value(parameter, given.get(name)) for name, parameter in declared.items()}


def _value(parameter: Mapping[str, Any], given: str | None) -> Any:
    name, kind = parameter["Name"], parameter["Type"]
    if given is None and "DefaultValue" not in parameter:
        raise DefinitionError(f"The pipeline parameter {name} ({kind}) has no default: give it a value.")
    value = _typed(name, kind, parameter["DefaultValue"] if given is None else given)
    allowed = parameter.get("EnumValues")
    if allowed and value not in allowed:
        raise DefinitionError(f"The pipeline parameter {name} must be one of {', '.join(allowed)}, not {value!r}.")
    return value


def _typed(name: str, kind: str, value: Any) -> Any:
    try:
        if kind == "Integer":
            return int(value)
        if kind == "Float":
            return float(value)
        if kind == "Boolean":
            return value if isinstance(value, bool) else _TRUTH[value.lower()]
        return str(value)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DefinitionError(f"The pipeline parameter {name} must be of type {kind}, not {value!r}.") from None
