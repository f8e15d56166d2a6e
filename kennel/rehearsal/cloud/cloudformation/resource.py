"""Enacted CloudFormation types: each is described by the API operations that create, read back and delete it.

Properties become an operation's parameters by botocore's shape of it: numbers and booleans that templates write as
text are converted, and what the operation does not take is left out, which the comparison in coverage.py finds.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from botocore import xform_name  # type: ignore[import-untyped]
from botocore.model import ListShape, MapShape, Shape, StructureShape  # type: ignore[import-untyped]
from moto.core.common_models import CloudFormationModel

from kennel.rehearsal.cloud.clients import client

Properties = dict[str, Any]
_NUMBERS: dict[str, Callable[[Any], Any]] = {"integer": int, "long": int, "float": float, "double": float}


@dataclass
class Created:
    """A resource that exists: the template's properties, the answer of the create operation, the physical id."""

    properties: Properties
    answer: Mapping[str, Any]
    physical_id: str


@dataclass(frozen=True)
class Read:
    """A read operation and how its parameters follow from a physical id and the template's properties."""

    operation: str  # as a boto3 client's method
    parameters: Callable[[str, Properties], Properties]


@dataclass(frozen=True, kw_only=True)
class EnactedType:
    """A resource type that something in the rehearsal acts on.

    `create` is botocore's name of the operation; where it is empty, moto's own class creates the resource.
    `parameters` turns properties into the operation's parameters. `update` changes a resource to its new properties,
    given the previous ones; a change of `name` or of one of `fixed` needs a new resource, as every change does
    without `update`.
    """

    type: str
    service: str
    reads: Sequence[Read]
    note: str = ""  # what of it is not enacted, for the coverage report
    create: str = ""
    name: str = ""  # the property that names the resource; CloudFormation makes up a name where it is not given
    parameters: Callable[[Properties], Properties] = lambda properties: properties
    ref: Callable[[Created], str] = lambda created: created.physical_id
    attributes: Mapping[str, Callable[[Created], str]] = field(default_factory=dict)
    after: Callable[[Created], None] = lambda created: None
    update: Callable[[Created, Properties], object] | None = None
    fixed: Sequence[str] = ()
    delete: Callable[[Created], None] = lambda created: None


def named(kind: str, service: str, create: str, delete: str, name: str, **rest: Any) -> EnactedType:
    """Return a type whose resources are created, read and deleted by the name in the property `name`.

    The operations' own member for the name is found in botocore's model of `delete`.
    """

    def member() -> str:
        shape = client(service).meta.service_model.operation_model(delete).input_shape
        return str(shape.required_members[0])

    def remove(created: Created) -> None:
        getattr(client(service), xform_name(delete))(**{member(): created.properties[name]})

    defaults = {"ref": lambda created: str(created.properties[name]), "delete": remove}
    return EnactedType(type=kind, service=service, create=create, name=name, **{**defaults, **rest})


def by_id(member: str) -> Callable[[str, Properties], Properties]:
    """Return the parameters of a read operation that takes nothing but the physical id."""
    return lambda physical_id, _properties: {member: physical_id}


def by_properties(*names: str) -> Callable[[str, Properties], Properties]:
    """Return the parameters of a read operation that takes some of the properties under their own names."""
    return lambda _physical_id, properties: {name: properties[name] for name in names}


def with_tag_map(properties: Properties) -> Properties:
    """Return `properties` with the tags as a map, for the APIs that take one; most take CloudFormation's list."""
    tags = properties.get("Tags")
    if isinstance(tags, list):
        return {**properties, "Tags": {tag["Key"]: tag["Value"] for tag in tags}}
    return properties


def conform(shape: Shape, value: Any) -> Any:
    """Return `value` in the API's types, without the members that the shape lacks."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        # Some services begin members in lower case (CloudWatch Logs), where CloudFormation never does.
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


def call(service: str, operation: str, properties: Properties) -> Any:
    """Call an operation, of botocore's name, with those of `properties` that it takes."""
    api = client(service)
    parameters = conform(api.meta.service_model.operation_model(operation).input_shape, properties)
    return getattr(api, xform_name(operation))(**parameters)


def create(kind: EnactedType, name: str, properties: Properties) -> Created:
    """Create a resource through the API; botocore's ClientError says what was wrong."""
    created = Created({kind.name: name, **properties} if kind.name else dict(properties), {}, name)
    created.answer = call(kind.service, kind.create, kind.parameters(created.properties))
    created.physical_id = kind.ref(created)
    try:
        kind.after(created)
    except Exception:
        kind.delete(created)  # half made: CloudFormation deletes it and says why it failed
        raise
    return created


class EnactedResource(CloudFormationModel):
    """A resource as moto's CloudFormation expects it; each type gets a subclass with its own `kind`."""

    kind: EnactedType
    created: Created

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr in cls.kind.attributes

    def get_cfn_attribute(self, attribute: str) -> str:
        if attribute not in self.kind.attributes:
            raise ValueError(f"{self.kind.type} has no attribute {attribute} in the embedded AWS")
        return self.kind.attributes[attribute](self.created)

    @property
    def physical_resource_id(self) -> str:
        return self.created.physical_id

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Any:
        resource = cls()
        resource.created = create(cls.kind, resource_name, cloudformation_json.get("Properties", {}))
        return resource

    def change(self, properties: Properties) -> bool:
        """Change the resource to `properties` and return true; return false where that needs a new resource."""
        kind, before = self.kind, self.created.properties
        after = {kind.name: before[kind.name], **properties} if kind.name else properties
        if kind.update is None or any(after[name] != before[name] for name in (kind.name, *kind.fixed) if name):
            return False
        changed = replace(self.created, properties=after)
        kind.update(changed, before)
        self.created = changed
        return True

    def delete(self, account_id: str, region_name: str) -> None:
        self.kind.delete(self.created)
