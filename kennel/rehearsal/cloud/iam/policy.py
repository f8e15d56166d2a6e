"""IAM's evaluation of policy documents: actions, resources and conditions; an explicit Deny wins."""

from __future__ import annotations

import ipaddress
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

Context = Mapping[str, str | list[str]]
_SET = re.compile(r"(?:(ForAllValues|ForAnyValue):)?(\w+?)(IfExists)?$")


def allowed(documents: Iterable[Mapping[str, Any]], action: str, resource: str | None, context: Context) -> bool:
    """Whether the documents together allow `action` on `resource` (None: any resource will do)."""
    permitted = False
    for document in documents:
        for statement in _many(document["Statement"]):
            if _concerns(statement, action, resource) and _holds(statement.get("Condition", {}), context):
                if statement["Effect"] == "Deny":
                    return False
                permitted = True
    return permitted


def _concerns(statement: Mapping[str, Any], action: str, resource: str | None) -> bool:
    if "NotAction" in statement:
        named = not _any(statement["NotAction"], action, fold=True)
    else:
        named = _any(statement.get("Action", []), action, fold=True)
    if not named or resource is None:
        return named
    if "NotResource" in statement:
        return not _any(statement["NotResource"], resource)
    return _any(statement.get("Resource", []), resource)


def _any(patterns: Any, value: str, fold: bool = False) -> bool:
    return any(_like(pattern, value, fold) for pattern in _many(patterns))


def _like(pattern: str, value: str, fold: bool = False) -> bool:
    return _glob(pattern, fold).fullmatch(value) is not None


@cache
def _glob(pattern: str, fold: bool) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(text, re.DOTALL | (re.IGNORECASE if fold else 0))


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _holds(conditions: Mapping[str, Mapping[str, Any]], context: Context) -> bool:
    lower = {key.lower(): value for key, value in context.items()}
    return all(
        _condition(name, _many(wanted), lower.get(key.lower()))
        for name, keys in conditions.items()
        for key, wanted in keys.items()
    )


def _condition(name: str, wanted: list[Any], actual: str | list[str] | None) -> bool:
    found = _SET.match(name)
    if not found:
        raise ValueError(f"IAM knows no condition operator {name!r}")
    many, kind, if_exists = found.groups()
    if kind == "Null":
        return (actual is None) == (str(wanted[0]).lower() == "true")
    values = [] if actual is None else [str(value) for value in _many(actual)]
    if not values:
        return many == "ForAllValues" or bool(if_exists) or (many is None and kind in _NEGATED)
    test = _TESTS[kind]
    hits = [_one(kind, test, wanted, value) for value in values]
    return all(hits) if many == "ForAllValues" else any(hits) if many == "ForAnyValue" else hits[0]


def _one(kind: str, test: Callable[[str, str], bool], wanted: list[Any], value: str) -> bool:
    """One value of the request against all of the policy's: any must hold; of a negated operator, none may match."""
    results = [test(_text(one), value) for one in wanted]
    return all(results) if kind in _NEGATED else any(results)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    return lambda wanted, value: compare(float(value), float(wanted))


def _in_network(wanted: str, value: str) -> bool:
    return ipaddress.ip_address(value) in ipaddress.ip_network(wanted)


_NEGATED = {"StringNotEquals", "StringNotEqualsIgnoreCase", "StringNotLike", "ArnNotEquals", "ArnNotLike"}
_NEGATED |= {"NumericNotEquals", "NotIpAddress"}
_TESTS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": operator.eq,
    "StringNotEquals": operator.ne,
    "StringEqualsIgnoreCase": lambda wanted, value: wanted.casefold() == value.casefold(),
    "StringNotEqualsIgnoreCase": lambda wanted, value: wanted.casefold() != value.casefold(),
    "StringLike": _like,
    "StringNotLike": lambda wanted, value: not _like(wanted, value),
    "ArnEquals": _like,
    "ArnLike": _like,
    "ArnNotEquals": lambda wanted, value: not _like(wanted, value),
    "ArnNotLike": lambda wanted, value: not _like(wanted, value),
    "Bool": lambda wanted, value: wanted.lower() == value.lower(),
    "NumericEquals": _number(operator.eq),
    "NumericNotEquals": _number(operator.ne),
    "NumericLessThan": _number(operator.lt),
    "NumericLessThanEquals": _number(operator.le),
    "NumericGreaterThan": _number(operator.gt),
    "NumericGreaterThanEquals": _number(operator.ge),
    "IpAddress": _in_network,
    "NotIpAddress": lambda wanted, value: not _in_network(wanted, value),
}
