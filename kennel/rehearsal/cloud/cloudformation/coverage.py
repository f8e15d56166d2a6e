"""How truly each resource is held: its properties are read back through the API and compared with the template.

CREATE_COMPLETE proves little in an embedded AWS, so each property is looked for in what the service answers. A row is
`held` (all found), `partial` (the note names what is not) or `stand-in` (the note says what answers instead).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from moto.cloudformation.models import cloudformation_backends

from kennel.rehearsal.cloud.assembly import StackFile
from kennel.rehearsal.cloud.cloudformation.readback import ALIASES, NEVER_SHOWN, NOT_ENACTED, READS, Read
from kennel.rehearsal.cloud.cloudformation.types.custom import STAND_INS
from kennel.rehearsal.cloud.sagemaker.resources import ACCOUNT, REGION
from kennel.rehearsal.interfaces import CoverageRow

if TYPE_CHECKING:
    from kennel.rehearsal.cloud.server import Cloud

Leaf = tuple[str, str]


def cover(cloud: Cloud, stack: StackFile) -> list[CoverageRow]:
    """One row for each resource of the template, those under a false condition included."""
    made = cloudformation_backends[ACCOUNT][REGION].get_stack(stack.name).resource_map
    rows = []
    for name, definition in stack.read()["Resources"].items():
        kind = definition["Type"]
        resource = made._parsed_resources.get(name)
        if resource is None:
            note = f"not made yet: the first release turns its condition {definition.get('Condition')} true"
            rows.append(CoverageRow(kind, name, "partial", note))
        elif kind in STAND_INS:
            rows.append(CoverageRow(kind, name, "stand-in", STAND_INS[kind]))
        else:
            rows.append(_row(cloud, kind, name, resource))
    return rows


def _row(cloud: Cloud, kind: str, name: str, resource: Any) -> CoverageRow:
    enacted = NOT_ENACTED.get(kind, "")
    if kind not in READS:
        return CoverageRow(kind, name, "partial", _join("accepted; there is no read-back for this type", enacted))
    try:
        answers = [_read(cloud, read, resource) for read in READS[kind]]
    except ClientError as error:
        return CoverageRow(kind, name, "partial", _join(f"could not be read back: {error}", enacted))
    missing = missing_from(resource.wanted, answers)
    if missing:
        return CoverageRow(kind, name, "partial", _join(f"not held: {', '.join(missing)}", enacted))
    return CoverageRow(kind, name, "held", enacted)


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _read(cloud: Cloud, read: Read, resource: Any) -> Any:
    """What the operation answers, and what was asked: a resource that answers to a name holds that name."""
    service, operation, parameters = read
    asked = parameters(resource.physical_resource_id, resource.wanted)
    try:
        answer = getattr(cloud.client(service), operation)(**asked)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _NOTHING_SET:
            raise
        return {}
    return {"Asked": asked, **{key: value for key, value in answer.items() if key != "ResponseMetadata"}}


_NOTHING_SET = ("NoSuchTagSet", "NoSuchLifecycleConfiguration", "LifecyclePolicyNotFoundException")
# A value that means the same wherever it stands: an ARN, an id that AWS made, a name that CloudFormation made.
_UNMISTAKABLE = re.compile(r"arn:.*|[a-z]+-[0-9a-f]{8,}|.*-[a-z0-9]{12}(:[a-z0-9]+)?|https?://.*")


def missing_from(wanted: Any, answers: Any) -> list[str]:
    """The paths in `wanted` whose last name and value `answers` has nowhere."""
    found = {leaf for _, leaf in leaves(answers)}
    values = {value for _, value in found if _UNMISTAKABLE.fullmatch(value)}
    asked = [answer.get("Asked", {}) for answer in answers if isinstance(answer, dict)]
    values |= {value for _, (_, value) in leaves(asked)}
    lost = {path for path, leaf in leaves(wanted) if leaf not in found and leaf[1] not in values}
    return sorted(lost - NEVER_SHOWN)


def leaves(value: Any, path: str = "", name: str = "") -> Iterator[tuple[str, Leaf]]:
    """Each scalar with its path, as (name in lower case, value as text); JSON within text is looked into."""
    value = _parsed(value)
    if isinstance(value, dict) and {key.lower() for key in value} == {"key", "value"}:
        pair = {key.lower(): inner for key, inner in value.items()}
        yield from leaves(pair["value"], f"{path}.{pair['key']}", str(pair["key"]))
    elif value == {}:
        yield path, (_name(name), "true")  # S3 says so that EventBridge is on
    elif isinstance(value, dict) and set(value) == {"Value"}:
        yield from leaves(value["Value"], path, name)  # EC2's attributes of a VPC
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key, key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from leaves(inner, path, name)
    else:
        yield path, (_name(name), _text(value))


def _name(name: str) -> str:
    return ALIASES.get(name.lower(), name.lower())


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _text(value: Any) -> str:
    """True and "true", 5 and 5.0 and "5" are the same here: templates and services write them differently."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        return f"{float(text):g}" if text[:1].isdigit() and len(text) < 12 else text.lower()
    except ValueError:
        return text.lower()
