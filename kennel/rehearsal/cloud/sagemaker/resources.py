"""SageMaker's named resources, held exactly as they were asked for.

moto keeps a third of the members of a Model, EndpointConfig or Endpoint and knows the instance types of 2021; here
botocore's own service model says what is valid, and Describe answers everything that Create was given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from botocore.model import ListShape, Shape, StructureShape  # type: ignore[import-untyped]
from moto.core.utils import get_service_model

from kennel.rehearsal.cloud.clients import ACCOUNT, REGION
from kennel.rehearsal.cloud.request import Call
from kennel.rehearsal.cloud.response import Answer, ApiError, json_answer

Record = dict[str, Any]


def arn(kind: str, name: str) -> str:
    """SageMaker writes names in lower case into its ARNs."""
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
            if name not in shape.members:
                raise ApiError("ValidationException", f"Unknown member {path}{name}")
            yield from _leaves(shape.members[name], inner, f"{path}{name}.")
    elif isinstance(shape, ListShape) and isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from _leaves(shape.member, inner, f"{path}{number}.")
    else:
        yield path.rstrip("."), shape, value


@cache
def _list_member(operation: str) -> str:
    """The output member that holds the list: Models, PipelineSummaries, ..."""
    members = get_service_model("sagemaker").operation_model(operation).output_shape.members
    return next(str(name) for name, shape in members.items() if isinstance(shape, ListShape))


@dataclass
class Kind:
    """One kind of resource, e.g. EndpointConfig; its name is the member EndpointConfigName."""

    noun: str
    path: str  # in the ARN
    status: dict[str, str] = field(default_factory=dict)
    missing: str = 'Could not find {path} "{arn}".'
    code: str = "ValidationException"
    shown: dict[str, str] = field(default_factory=dict)  # a member of Create: how Describe calls it
    records: dict[str, Record] = field(default_factory=dict)

    @property
    def member(self) -> str:
        return f"{self.noun}Name"

    def get(self, name: str) -> Record:
        """By name or ARN; raises ApiError as the service does."""
        name = name.rpartition("/")[2] if name.startswith("arn:") else name
        for record in (self.records.get(name), *self.records.values()):
            if record and record[self.member].lower() == name.lower():
                return record
        raise ApiError(self.code, self.missing.format(path=self.path, arn=arn(self.path, name), name=name))

    def create(self, call: Call) -> Answer:
        record = self.add(call.parameters)
        return json_answer({f"{self.noun}Arn": record[f"{self.noun}Arn"]})

    def add(self, parameters: Record) -> Record:
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

    def describe(self, call: Call) -> Answer:
        record = self.get(self._asked(call))
        return json_answer({self.shown.get(key, key): value for key, value in record.items() if key != "Tags"})

    def delete(self, call: Call) -> Answer:
        del self.records[self.get(self._asked(call))[self.member]]
        return json_answer({})

    def update(self, call: Call) -> Answer:
        record = self.get(self._asked(call))
        check(f"Update{self.noun}", call.parameters)
        record.update(call.parameters, LastModifiedTime=datetime.now(UTC))
        return json_answer({f"{self.noun}Arn": record[f"{self.noun}Arn"]})

    def listing(self, call: Call) -> Answer:
        part = call.parameters.get("NameContains", "")
        return page(call, [record for name, record in self.records.items() if part in name])

    def _asked(self, call: Call) -> str:
        return str(call.parameters[self.member])

    def handlers(self) -> dict[tuple[str, str], Callable[[Call], Answer]]:
        plural = f"{self.noun}s"
        verbs = {"Create": self.create, "Describe": self.describe, "Delete": self.delete, "Update": self.update}
        known = get_service_model("sagemaker").operation_names
        found = {f"{verb}{self.noun}": handler for verb, handler in verbs.items() if f"{verb}{self.noun}" in known}
        return {("sagemaker", name): handler for name, handler in {**found, f"List{plural}": self.listing}.items()}


def page(call: Call, records: list[Record]) -> Answer:
    """One page of a List operation: SortOrder (newest first unless asked otherwise), MaxResults and NextToken."""
    asked = call.parameters
    ordered = records if asked.get("SortOrder") == "Ascending" else records[::-1]
    first, size = int(asked.get("NextToken", 0)), int(asked.get("MaxResults", 100))
    more = {"NextToken": str(first + size)} if first + size < len(ordered) else {}
    return json_answer({_list_member(call.operation): ordered[first : first + size], **more})
