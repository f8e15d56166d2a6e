"""EventBridge's event patterns, all comparisons of them (moto has no wildcard, and EventBridge has no shorter name)."""

from __future__ import annotations

import ipaddress
import operator
import re
from collections.abc import Callable
from typing import Any

_ABSENT = object()
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def matches(pattern: dict[str, Any], event: Any) -> bool:
    """Whether `event` has, for every field of `pattern`, one of the values that it lists."""
    for name, wanted in pattern.items():
        if name == "$or":
            if not any(matches(one, event) for one in wanted):
                return False
            continue
        found = event.get(name, _ABSENT) if isinstance(event, dict) else _ABSENT
        if isinstance(wanted, dict):
            if not matches(wanted, {} if found is _ABSENT else found):
                return False
        elif not any(_one(rule, found) for rule in wanted):
            return False
    return True


def _one(rule: Any, found: Any) -> bool:
    if isinstance(rule, dict) and "exists" in rule:
        return bool(rule["exists"]) == (found is not _ABSENT)
    if found is _ABSENT:
        return False
    values = found if isinstance(found, list) else [found]
    return any(_value(rule, value) for value in values)


def _value(rule: Any, value: Any) -> bool:
    if not isinstance(rule, dict):
        return bool(rule == value) and isinstance(rule, bool) == isinstance(value, bool)
    (kind, wanted) = next(iter(rule.items()))
    if kind not in _COMPARE:
        raise ValueError(f"EventBridge knows no comparison {kind!r}")
    return bool(_COMPARE[kind](wanted, value))


def _affix(wanted: Any, value: Any, test: Callable[[str, str], bool]) -> bool:
    if not isinstance(value, str):
        return False
    if isinstance(wanted, dict):
        return test(value.casefold(), wanted["equals-ignore-case"].casefold())
    return test(value, wanted)


def _wildcard(wanted: str, value: Any) -> bool:
    parts = [re.escape(part) for part in wanted.split("*")]
    return isinstance(value, str) and re.fullmatch(".*".join(parts), value, re.DOTALL) is not None


def _anything_but(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, dict):
        ((kind, inner),) = wanted.items()
        return not any(_value({kind: one}, value) for one in (inner if isinstance(inner, list) else [inner]))
    return value not in (wanted if isinstance(wanted, list) else [wanted])


def _numeric(wanted: list[Any], value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return all(_ORDER[sign](value, limit) for sign, limit in zip(wanted[::2], wanted[1::2], strict=True))


def _cidr(wanted: str, value: Any) -> bool:
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(wanted)
    except ValueError:
        return False


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "prefix": lambda wanted, value: _affix(wanted, value, str.startswith),
    "suffix": lambda wanted, value: _affix(wanted, value, str.endswith),
    "equals-ignore-case": lambda wanted, value: isinstance(value, str) and value.casefold() == wanted.casefold(),
    "wildcard": _wildcard,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "cidr": _cidr,
}
