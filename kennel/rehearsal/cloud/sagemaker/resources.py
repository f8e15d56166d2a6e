"""Stores SageMaker's named resources with all members of their Create request.

moto stores a third of the members of a Model, EndpointConfig or Endpoint and knows the instance types of 2021; here
botocore's own service model says what is valid, and Describe returns everything that Create was given.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from botocore.model import ListShape, Shape, StructureShape  # type: ignore[import-untyped]
from moto.core.utils import get_service_model
from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call, Handler, json_answer
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION

Record = dict[str, Any]


def arn(kind: str, name: str) -> str:
    """Return a resource's ARN, in which SageMaker writes names in lower case."""
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/{name.lower()}"


def check(operation: str, parameters: dict[str, Any]) -> None:
    """Raise ValidationException for what botocore's model of `operation` excludes and no client checks: enum values."""
    for path, shape, value in _leaves(
        get_service_model("sagemaker").operation_model(operation).input_shape, parameters
    ):
        allowed = shape.metadata.get("enum")
        if allowed and value not in allowed:
            raise ApiError(
                "ValidationException",
                f"1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint: "
                f"Member must satisfy enum value set: [{', '.join(allowed)}]",
            )


def _leaves(shape: Shape, value: Any, path: str = "") -> Iterator[tuple[str, Shape, Any]]:
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(shape.members[name], inner, f"{path}{name}.")
    elif isinstance(shape, ListShape) and isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from _leaves(shape.member, inner, f"{path}{number}.")
    else:
        yield path.rstrip("."), shape, value


@cache
def _list_member(operation: str) -> str:
    """Return the output member that holds the list: Models, PipelineSummaries, ..."""
    members = get_service_model("sagemaker").operation_model(operation).output_shape.members
    return next(str(name) for name, shape in members.items() if isinstance(shape, ListShape))


@dataclass
class ResourceStore:
    """All resources of one noun, such as EndpointConfig, whose name is the member EndpointConfigName."""

    noun: str
    path: str  # in the ARN
    status: dict[str, str] = field(default_factory=dict)  # what each resource has besides the request's members
    missing: str = 'Could not find {path} "{arn}".'
    code: str = "ValidationException"
    described_as: dict[str, str] = field(default_factory=dict)  # a member of Create: its name in Describe
    records: dict[str, Record] = field(default_factory=dict)

    @property
    def member(self) -> str:
        return f"{self.noun}Name"

    def get(self, name: str) -> Record:
        """Return a resource by name or ARN; raise ApiError as the service does."""
        name = name.rpartition("/")[2] if name.startswith("arn:") else name
        for record in (self.records.get(name), *self.records.values()):
            if record and record[self.member].lower() == name.lower():
                return record
        raise ApiError(self.code, self.missing.format(path=self.path, arn=arn(self.path, name), name=name))

    def create(self, call: Call) -> Response:
        record = self.add(call.parameters)
        return json_answer({f"{self.noun}Arn": record[f"{self.noun}Arn"]})

    def add(self, parameters: Record) -> Record:
        """Store and return a new resource; raise ApiError for what is not valid or exists already."""
        check(f"Create{self.noun}", parameters)
        name = str(parameters[self.member])
        if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,255}", name):
            raise ApiError("ValidationException", f"Value '{name}' at '{self.member}' is no valid name")
        if name in self.records:
            raise ApiError(self.code, f'Cannot create already existing {self.path} "{arn(self.path, name)}".')
        now = datetime.now(UTC)
        times = {"CreationTime": now, "LastModifiedTime": now}
        self.records[name] = {**parameters, f"{self.noun}Arn": arn(self.path, name), **times, **self.status}
        return self.records[name]

    def describe(self, call: Call) -> Response:
        record = self.get(self.name_in(call))
        return json_answer({self.described_as.get(key, key): value for key, value in record.items() if key != "Tags"})

    def delete(self, call: Call) -> Response:
        del self.records[self.get(self.name_in(call))[self.member]]
        return json_answer({})

    def update(self, call: Call) -> Response:
        record = self.get(self.name_in(call))
        check(f"Update{self.noun}", call.parameters)
        record.update(call.parameters, LastModifiedTime=datetime.now(UTC))
        return json_answer({f"{self.noun}Arn": record[f"{self.noun}Arn"]})

    def listing(self, call: Call) -> Response:
        part = call.parameters.get("NameContains", "")
        return page(call, [record for name, record in self.records.items() if part in name])

    def name_in(self, call: Call) -> str:
        return str(call.parameters[self.member])

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by operation, of those operations that SageMaker has."""
        verbs = {"Create": self.create, "Describe": self.describe, "Delete": self.delete, "Update": self.update}
        found: dict[str, Handler] = {f"{verb}{self.noun}": handler for verb, handler in verbs.items()}
        known = get_service_model("sagemaker").operation_names
        return {name: one for name, one in found.items() if name in known} | {f"List{self.noun}s": self.listing}


def page(call: Call, records: list[Record]) -> Response:
    """Answer a List operation by SortOrder (newest first where it is not given), MaxResults and NextToken."""
    given = call.parameters
    ordered = records if given.get("SortOrder") == "Ascending" else records[::-1]
    first, size = int(given.get("NextToken", 0)), int(given.get("MaxResults", 100))
    more = {"NextToken": str(first + size)} if first + size < len(ordered) else {}
    return json_answer({_list_member(call.operation): ordered[first : first + size], **more})
