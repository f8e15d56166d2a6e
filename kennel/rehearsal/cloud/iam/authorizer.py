"""Checks every call with a role's credentials against that role's synthesized policies, and notes what was used.

The rules of evaluation are IAM's. What no synthesized policy uses raises NotImplementedError, instead of being
evaluated wrongly.
"""

import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from moto.cloudformation.models import cloudformation_backends
from moto.iam.models import Role, iam_backends
from moto.s3.models import s3_backends

from kennel.rehearsal.cloud.api import ApiError, Call
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION
from kennel.rehearsal.cloud.iam.required_permissions import Context, RequiredPermission, as_text, required_permissions
from kennel.rehearsal.interfaces import UnusedPermission

Document = Mapping[str, Any]
_NOT_REHEARSED = ("NotAction", "NotResource", "NotPrincipal")


class Authorizer:
    """Permits or refuses calls; remembers each refusal in `denied`, and which permission let the others through.

    The administrator may do everything.
    """

    def __init__(self) -> None:
        self.denied: list[str] = []
        self._used: set[tuple[str, str, str]] = set()  # role's name, statement as JSON, action as it stands there

    def permit(self, call: Call) -> None:
        """Return when the caller may do this; raise ApiError as the service does otherwise."""
        if (call.service, call.operation) == ("sts", "AssumeRole"):
            _check_role(call.parameters["RoleArn"])
        if call.role is None:
            return
        documents = _documents(call.role)
        for one in required_permissions(call):
            if not allowed([*documents, *_bucket_denials(one.resource)], one.action, one.resource, one.context):
                self._refuse(call, call.role, one)
            self._note(call.role, documents, one)

    def unused(self) -> list[UnusedPermission]:
        """Return each action of a role of a deployed stack that no call has needed so far, by role."""
        found = {
            UnusedPermission(label, action)
            for label, name in _roles_of_stacks()
            for document in _documents(name)
            for statement in as_list(document["Statement"])
            for action in as_list(statement["Action"])
            if (name, _text(statement), action) not in self._used
        }
        return sorted(found, key=lambda one: (one.role, one.action))

    def _note(self, role: str, documents: list[Document], one: RequiredPermission) -> None:
        name = role.rpartition("/")[2]
        for statement in applying(documents, one.action, one.resource, one.context):
            granting = [each for each in as_list(statement["Action"]) if names_action(each, one.action)]
            self._used |= {(name, _text(statement), each) for each in granting}

    def _refuse(self, call: Call, role: str, missing: RequiredPermission) -> None:
        where = f" on resource: {missing.resource}" if missing.resource else ""
        self.denied.append(f"{role.rpartition('/')[2]} may not {missing.action}{where}")
        who, what = caller(call), f"{missing.action}{where}"
        text = f"User: {who} is not authorized to perform: {what} because no identity-based policy "
        code = "AccessDenied" if call.service in ("s3", "sts", "cloudformation", "sqs") else "AccessDeniedException"
        status = 400 if call.service == "sagemaker" else 403
        raise ApiError(code, f"{text}allows the {missing.action} action", status)


def caller(call: Call) -> str:
    """Return the ARN of who makes the call, as IAM writes it."""
    if call.role is None:
        return f"arn:aws:iam::{ACCOUNT}:user/rehearsal"
    return f"{call.role.replace(':iam:', ':sts:').replace(':role/', ':assumed-role/')}/rehearsal"


def _check_role(arn: str) -> None:
    """Raise ApiError for a role that does not exist, which moto lets anybody assume."""
    if arn not in {role.arn for role in iam_backends[ACCOUNT]["aws"].roles.values()}:
        text = f"User: arn:aws:iam::{ACCOUNT}:user/rehearsal is not authorized to perform: sts:AssumeRole on resource: "
        raise ApiError("AccessDenied", text + arn, 403)


def _documents(role: str) -> list[Document]:
    """Return the inline policies of a role, by name or ARN, as they stand now; moto knows no managed ones of AWS."""
    policies = iam_backends[ACCOUNT]["aws"].get_role(role.rpartition("/")[2]).policies.values()
    return [json.loads(text) if isinstance(text, str) else text for text in policies]


def _roles_of_stacks() -> list[tuple[str, str]]:
    """Return each role of a stack as `<stack without its stage>/<logical id without CDK's hash>` and its name."""
    return [
        (f"{stack.name.rpartition('-')[2]}/{re.sub(r'[0-9A-F]{8}$', '', logical_id)}", resource.name)
        for stack in cloudformation_backends[ACCOUNT][REGION].stacks.values()
        for logical_id, resource in stack.resource_map._parsed_resources.items()
        if isinstance(resource, Role)
    ]


def _bucket_denials(resource: str | None) -> list[Document]:
    """Return the Deny statements for everybody in the bucket's own policy; loopback stands for TLS in conditions."""
    if not (resource or "").startswith("arn:aws:s3:::"):
        return []
    bucket = s3_backends[ACCOUNT]["aws"].buckets.get(str(resource)[13:].partition("/")[0])
    statements = json.loads(bucket.policy)["Statement"] if bucket and bucket.policy else []
    everybody = ("*", {"AWS": "*"})
    return [{"Statement": [one for one in statements if one["Effect"] == "Deny" and one["Principal"] in everybody]}]


def _text(statement: Any) -> str:
    return json.dumps(statement, sort_keys=True)


def allowed(documents: Iterable[Document], action: str, resource: str | None, context: Context) -> bool:
    """Return whether the documents together allow `action` on `resource` (None: any resource will do).

    An explicit Deny wins. `context` holds the request's condition keys.
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
            raise NotImplementedError(f"{element} in a policy is not rehearsed: add it to iam/authorizer.py")
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
        raise NotImplementedError(f"The condition operator {name!r} is not rehearsed: add it to iam/authorizer.py")
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
