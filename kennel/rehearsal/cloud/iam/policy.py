"""IAM's rules of evaluation: which statements of a policy document apply to an action, and whether they allow it."""

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from kennel.rehearsal.cloud.iam.required_permissions import Context, as_text

Document = Mapping[str, Any]
_NOT_REHEARSED = ("NotAction", "NotResource", "NotPrincipal")


def allowed(documents: Iterable[Document], action: str, resource: str | None, context: Context) -> bool:
    """Return whether the documents together allow `action` on `resource` (None: any resource will do).

    An explicit Deny wins. `context` holds the request's condition keys. Raises NotImplementedError for what no
    synthesized policy uses, instead of evaluating it wrongly.
    """
    effects = {statement["Effect"] for statement in applying(documents, action, resource, context)}
    return effects == {"Allow"}


def applying(
    documents: Iterable[Document], action: str, resource: str | None, context: Context
) -> Iterator[Mapping[str, Any]]:
    """Yield the statements, of either effect, that apply to `action` on `resource` in `context`."""
    for document in documents:
        for statement in as_list(document["Statement"]):
            if _applies(statement, action, resource) and _conditions_met(statement.get("Condition", {}), context):
                yield statement


def _applies(statement: Mapping[str, Any], action: str, resource: str | None) -> bool:
    for element in _NOT_REHEARSED:
        if element in statement:
            raise NotImplementedError(f"{element} in a policy is not rehearsed: add it to iam/policy.py")
    if not any(names_action(pattern, action) for pattern in as_list(statement["Action"])):
        return False
    return resource is None or any(_matches(pattern, resource) for pattern in as_list(statement.get("Resource", [])))


def names_action(pattern: str, action: str) -> bool:
    """Return whether a statement's `pattern` names `action`: IAM does not look at the case."""
    return _matches(pattern, action, ignore_case=True)


def _matches(pattern: str, value: str, ignore_case: bool = False) -> bool:
    return _glob(pattern, ignore_case).fullmatch(value) is not None


@cache
def _glob(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(text, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def as_list(value: Any) -> list[Any]:
    """Return a policy's element as a list: IAM lets one value stand alone."""
    return value if isinstance(value, list) else [value]


def _conditions_met(conditions: Mapping[str, Mapping[str, Any]], context: Context) -> bool:
    lower = {key.lower(): value for key, value in context.items()}
    return all(
        _condition(name, as_list(expected), lower.get(key.lower()))
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
    values = [] if actual is None else [str(value) for value in as_list(actual)]
    hits = (any(_TESTS[test_name](as_text(one), value) for one in expected) for value in values)
    return all(hits) if for_all else next(hits, False)


_TESTS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": operator.eq,
    "StringLike": _matches,
    "ArnEquals": _matches,
    "ArnLike": _matches,
    "Bool": lambda expected, value: expected.lower() == value.lower(),
    "NumericLessThanEquals": lambda expected, value: float(value) <= float(expected),
}
