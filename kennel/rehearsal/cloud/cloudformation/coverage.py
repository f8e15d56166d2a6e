"""Reads each enacted resource back through AWS's API and compares it with the template, property by property.

That a stack was created proves little in an embedded AWS. `kennel.rehearsal.interfaces.CoverageRow` lists the statuses.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from moto.cloudformation.models import cloudformation_backends

from kennel.rehearsal.cloud.clients import ACCOUNT, REGION, client
from kennel.rehearsal.cloud.cloudformation.resource import EnactedType, Read
from kennel.rehearsal.cloud.cloudformation.types.accepted import ACCEPTED, STAND_INS
from kennel.rehearsal.cloud.cloudformation.types.table import ENACTED
from kennel.rehearsal.interfaces import CoverageRow

Leaf = tuple[str, str]

# CloudFormation's property: the API's member, both in lower case.
_API_NAMES = {
    "destinationbucketname": "targetbucket",
    "expirationindays": "days",
    "logfileprefix": "targetprefix",
    "principal": "service",
    "transitionindays": "days",
}
# What AWS itself does not return either: where code came from, and what only CloudFormation looks at.
# EventBridge on a bucket is the exception: moto stores it without returning it, and events.py acts on it.
_NEVER_RETURNED = {
    "NotificationConfiguration.EventBridgeConfiguration.EventBridgeEnabled",
    "RetainAllVariantProperties",
    "Code.S3Bucket",
    "Code.S3Key",
    "Code.ZipFile",
    *(
        f"UpdatePolicy.CodeDeployLambdaAliasUpdate.{member}"
        for member in ("ApplicationName", "DeploymentGroupName", "BeforeAllowTrafficHook")
    ),
}
_NOTHING_SET = ("NoSuchTagSet", "NoSuchLifecycleConfiguration")
# A value that means the same wherever it stands: an ARN, a URL, a name that CloudFormation made up.
_UNMISTAKABLE = re.compile(r"arn:.*|.*-[a-z0-9]{12}(:[a-z0-9]+)?|https?://.*")


def coverage_of_stack(name: str, template: dict[str, Any]) -> list[CoverageRow]:
    """Return one row for each resource of the deployed stack, those under a false condition included."""
    created = cloudformation_backends[ACCOUNT][REGION].get_stack(name).resource_map._parsed_resources
    return [_row(logical_id, one, created.get(logical_id)) for logical_id, one in template["Resources"].items()]


def _row(logical_id: str, definition: dict[str, Any], resource: Any) -> CoverageRow:
    kind = definition["Type"]
    if kind in ACCEPTED:
        return CoverageRow(kind, logical_id, "accepted", ACCEPTED[kind])
    if kind in STAND_INS:
        return CoverageRow(kind, logical_id, "stand-in", STAND_INS[kind])
    if resource is None:
        note = f"not created yet: the first release turns its condition {definition.get('Condition')} true"
        return CoverageRow(kind, logical_id, "partial", note)
    difference = _difference(ENACTED[kind], resource)
    notes = [note for note in (difference, ENACTED[kind].note) if note]
    return CoverageRow(kind, logical_id, "partial" if difference else "enacted", "; ".join(notes))


def _difference(kind: EnactedType, resource: Any) -> str:
    """Return what the service does not return of the resource's properties; empty where it returns all."""
    try:
        answers = [_read(kind.service, read, resource) for read in kind.reads]
    except ClientError as error:
        return f"could not be read back: {error}"
    missing = missing_from(resource.template_properties, answers)
    return f"not stored: {', '.join(missing)}" if missing else ""


def _read(service: str, read: Read, resource: Any) -> dict[str, Any]:
    """Return the answer and the request: a resource that answers to a name has that name."""
    request = read.parameters(resource.physical_resource_id, resource.template_properties)
    try:
        answer = getattr(client(service), read.operation)(**request)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _NOTHING_SET:
            raise
        return {}
    return {"Request": request, **{key: value for key, value in answer.items() if key != "ResponseMetadata"}}


def missing_from(properties: Any, answers: list[dict[str, Any]]) -> list[str]:
    """Return the paths in `properties` whose last name and value are nowhere in `answers`."""
    found = {leaf for _, leaf in _leaves(answers)}
    values = {value for _, value in found if _UNMISTAKABLE.fullmatch(value)}
    values |= {value for _, (_, value) in _leaves([answer.get("Request", {}) for answer in answers])}
    lost = {path for path, leaf in _leaves(properties) if leaf not in found and leaf[1] not in values}
    return sorted(lost - _NEVER_RETURNED)


def _leaves(value: Any, path: str = "", name: str = "") -> Iterator[tuple[str, Leaf]]:
    """Yield each scalar's path and (name in lower case, value as text); JSON within text is looked into."""
    value = _parsed(value)
    if isinstance(value, dict) and {key.lower() for key in value} == {"key", "value"}:
        pair = {key.lower(): inner for key, inner in value.items()}
        yield from _leaves(pair["value"], f"{path}.{pair['key']}", str(pair["key"]))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key, key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner, path, name)
    else:
        yield path, (_name(name), _text(value))


def _name(name: str) -> str:
    return _API_NAMES.get(name.lower(), name.lower())


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _text(value: Any) -> str:
    """Return the same text for True and "true", for 5, 5.0 and "5": templates and services write them differently."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        return f"{float(text):g}" if text[:1].isdigit() and len(text) < 12 else text.lower()
    except ValueError:
        return text.lower()
