"""IAM's evaluation of policy documents: actions, resources and conditions; an explicit Deny wins.

It knows what the synthesized policies use, and refuses the rest loudly instead of evaluating it wrongly.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

Context = Mapping[str, str | list[str]]
_NOT_REHEARSED = ("NotAction", "NotResource", "NotPrincipal")


def allowed(documents: Iterable[Mapping[str, Any]], action: str, resource: str | None, context: Context) -> bool:
    """Return whether the documents together allow `action` on `resource` (None: any resource will do).

    `context` holds the request's condition keys. Raises NotImplementedError for what is not rehearsed.
    """
    permitted = False
    for document in documents:
        for statement in _as_list(document["Statement"]):
            if _applies(statement, action, resource) and _conditions_met(statement.get("Condition", {}), context):
                if statement["Effect"] == "Deny":
                    return False
                permitted = True
    return permitted


def _applies(statement: Mapping[str, Any], action: str, resource: str | None) -> bool:
    for element in _NOT_REHEARSED:
        if element in statement:
            raise NotImplementedError(f"{element} in a policy is not rehearsed: add it to iam/policy.py")
    if not any(_matches(pattern, action, ignore_case=True) for pattern in _as_list(statement["Action"])):
        return False
    return resource is None or any(_matches(pattern, resource) for pattern in _as_list(statement.get("Resource", [])))


def _matches(pattern: str, value: str, ignore_case: bool = False) -> bool:
    return _glob(pattern, ignore_case).fullmatch(value) is not None


@cache
def _glob(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(text, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _conditions_met(conditions: Mapping[str, Mapping[str, Any]], context: Context) -> bool:
    lower = {key.lower(): value for key, value in context.items()}
    return all(
        _condition(name, _as_list(expected), lower.get(key.lower()))
        for name, keys in conditions.items()
        for key, expected in keys.items()
    )


def _condition(name: str, expected: list[Any], actual: str | list[str] | None) -> bool:
    """Return whether the request's value is one of those expected; for ForAllValues, each of its values."""
    if name == "Null":
        return (actual is None) == (as_text(expected[0]) == "true")
    for_all, _, test_name = name.rpartition(":")
    if for_all not in ("", "ForAllValues") or test_name not in _TESTS:
        raise NotImplementedError(f"The condition operator {name!r} is not rehearsed: add it to iam/policy.py")
    values = [] if actual is None else [str(value) for value in _as_list(actual)]
    hits = (any(_TESTS[test_name](as_text(one), value) for one in expected) for value in values)
    return all(hits) if for_all else next(hits, False)


def as_text(value: Any) -> str:
    """Return a value as policies write it: booleans in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)


_TESTS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": operator.eq,
    "StringLike": _matches,
    "ArnEquals": _matches,
    "ArnLike": _matches,
    "Bool": lambda expected, value: expected.lower() == value.lower(),
    "NumericLessThanEquals": lambda expected, value: float(value) <= float(expected),
}
