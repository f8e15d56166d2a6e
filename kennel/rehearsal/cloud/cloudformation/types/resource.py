"""One row a resource type: which API operation makes it, what names it, and what its attributes are.

Properties become the operation's parameters by botocore's shape of it: numbers and booleans that templates write as
text are converted, and what the operation does not take is left out, which the read-back of coverage.py finds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore import xform_name  # type: ignore[import-untyped]
from botocore.model import ListShape, MapShape, Shape, StructureShape  # type: ignore[import-untyped]

from kennel.rehearsal.cloud.clients import admin

Properties = dict[str, Any]
_NUMBERS: dict[str, Callable[[Any], Any]] = {"integer": int, "long": int, "float": float, "double": float}


@dataclass
class Made:
    """A resource that exists: what was asked, what the API answered, how it is called."""

    wanted: Properties
    answer: Mapping[str, Any]
    physical: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """`shape` turns properties into the operation's parameters; `update` None: a change means a new resource."""

    type: str
    service: str
    create: str  # botocore's operation name
    name: str | None = None  # the property that names it; generated when it is not given
    shape: Callable[[Properties], Properties] = lambda properties: properties
    ref: Callable[[Made], str]
    attributes: Mapping[str, Callable[[Made], str]] = field(default_factory=dict)
    after: Callable[[Made], None] = lambda made: None
    update: Callable[[Made, Properties], bool] | None = None
    delete: Callable[[Made], None] = lambda made: None


def tag_map(properties: Properties) -> Properties:
    """With the tags as a map, for the APIs that want one; most take CloudFormation's list."""
    tags = properties.get("Tags")
    if isinstance(tags, list):
        return {**properties, "Tags": {tag["Key"]: tag["Value"] for tag in tags}}
    return properties


def conform(shape: Shape, value: Any) -> Any:
    """`value` in the API's types, without the members that the shape lacks."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        # Some services begin members in lower case (CodeBuild), where CloudFormation never does.
        lower = {name.lower(): name for name in shape.members}
        known = {lower[key.lower()]: inner for key, inner in value.items() if key.lower() in lower}
        return {name: conform(shape.members[name], inner) for name, inner in known.items()}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [conform(shape.member, inner) for inner in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: conform(shape.value, inner) for key, inner in value.items()}
    return _scalar(shape.type_name, value)


def _scalar(kind: str, value: Any) -> Any:
    if kind == "string" and not isinstance(value, str):
        return json.dumps(value) if isinstance(value, dict | list | bool) else str(value)
    if kind == "boolean" and isinstance(value, str):
        return value.lower() == "true"
    return _NUMBERS[kind](value) if kind in _NUMBERS else value


def make(row: Row, name: str, properties: Properties) -> Made:
    """Create the resource through the API; botocore's ClientError says what was wrong."""
    wanted = {row.name: name, **properties} if row.name else dict(properties)
    client = admin(row.service)
    operation = client.meta.service_model.operation_model(row.create)
    made = Made(wanted, {}, name)
    parameters = conform(operation.input_shape, row.shape(wanted))
    made.answer = getattr(client, xform_name(row.create))(**parameters)
    made.physical = row.ref(made)
    try:
        row.after(made)
    except Exception:
        row.delete(made)  # half made: CloudFormation deletes it and says why it failed
        raise
    return made


def wait(ready: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not ready within {seconds:.0f} s")
        time.sleep(0.02)
