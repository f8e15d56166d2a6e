"""The answers and errors of the embedded AWS itself, in the protocol of the service that was called."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from xml.sax.saxutils import escape

from moto.core.utils import get_service_model

from kennel.rehearsal.cloud.request import Call

Start = Callable[[str, list[tuple[str, str]]], Any]


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, start: Start) -> Iterable[bytes]:
        """Begin a WSGI response and return its body."""
        headers = {"Content-Type": "application/x-amz-json-1.1", **self.headers, "Content-Length": str(len(self.body))}
        start(f"{self.status} ", list(headers.items()))
        return [self.body]


Handler = Callable[[Call], Answer]


class ApiError(Exception):
    """An error that the caller of the API gets: AWS's code, the text, the HTTP status and further members."""

    def __init__(self, code: str, message: str, status: int = 400, **members: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.members = code, message, status, members


def json_answer(result: Mapping[str, Any], status: int = 200, **headers: str) -> Answer:
    """Return `result` as JSON, with times as numbers of seconds."""
    return Answer(json.dumps(result, default=_timestamp).encode(), status, headers)


def error_answer(service: str, error: ApiError) -> Answer:
    """Return `error` in the protocol of `service`."""
    protocol = get_service_model(service).protocol
    if protocol == "rest-xml":
        body = f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message></Error>"
    elif protocol == "ec2":
        inner = f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message></Error>"
        body = f"<Response><Errors>{inner}</Errors><RequestID>local</RequestID></Response>"
    elif protocol == "query":
        inner = f"<Type>Sender</Type><Code>{error.code}</Code><Message>{escape(error.message)}</Message>"
        body = f"<ErrorResponse><Error>{inner}</Error><RequestId>local</RequestId></ErrorResponse>"
    else:
        members = {"__type": error.code, "message": error.message, "Message": error.message, **error.members}
        return json_answer(members, error.status, **{"x-amzn-ErrorType": error.code})
    return Answer(body.encode(), error.status, {"Content-Type": "text/xml"})


def _timestamp(value: object) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    raise TypeError(f"{value!r} cannot be written as JSON")
