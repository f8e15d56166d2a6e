"""One call of an AWS API over HTTP: read from the request, and answered in the protocol of its service."""

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote
from xml.sax.saxutils import escape

from moto.core.routing import get_service_router
from moto.core.utils import get_service_model
from moto.moto_server.werkzeug_app import BackendRequest
from werkzeug.exceptions import NotFound

Environ = dict[str, Any]
Start = Callable[[str, list[tuple[str, str]]], Any]

# Credential scopes that do not name botocore's service.
_SERVICES = {"monitoring": "cloudwatch"}
_RUNTIME = re.compile(r"/endpoints/[^/]+/(invocations|async-invocations|invocations-response-stream)$")
_SCOPE = re.compile(r"Credential=([^/,]+)/[0-9]{8}/([^/]+)/([^/]+)/aws4_request")


@dataclass(frozen=True)
class Call:
    """One API call; `parameters` are its members, for S3 only Bucket, Key and the query. No `access_key`: unsigned."""

    service: str
    operation: str
    parameters: dict[str, Any]
    body: bytes
    access_key: str
    region: str
    environ: Environ

    def header(self, name: str, default: str = "") -> str:
        """Return an HTTP header of the request."""
        key = name.upper().replace("-", "_")
        return str(self.environ.get(key if key == "CONTENT_TYPE" else f"HTTP_{key}", default))


def parse(environ: Environ) -> Call | None:
    """Return the call of a request, or None for what is no signed call of AWS, such as moto's own pages.

    The body stays readable for moto.
    """
    access_key, region, scope = _credentials(environ)
    service = _service(scope, environ["PATH_INFO"])
    body = b"" if service == "s3" else _body(environ)
    try:
        operation, parameters = _operation(service, environ, body)
    except (NotFound, NotImplementedError, ValueError, KeyError):
        if not access_key:
            return None
        operation, parameters = "Unknown", {}
    return Call(service, operation, parameters, body, access_key, region, environ)


def _credentials(environ: Environ) -> tuple[str, str, str]:
    header = environ.get("HTTP_AUTHORIZATION", "")
    if found := _SCOPE.search(header):
        return found[1], found[2], found[3]
    query = dict(parse_qsl(environ.get("QUERY_STRING", "")))  # a presigned URL
    parts = query.get("X-Amz-Credential", "").split("/")
    return (parts[0], parts[2], parts[3]) if len(parts) == 5 else ("", "us-east-1", "s3")


def _service(scope: str, path: str) -> str:
    if scope == "sagemaker" and _RUNTIME.search(path):
        return "sagemaker-runtime"
    return _SERVICES.get(scope, scope)


def _body(environ: Environ) -> bytes:
    source, length = environ["wsgi.input"], environ.get("CONTENT_LENGTH")
    body: bytes = source.read(int(length)) if length else source.read() if environ.get("wsgi.input_terminated") else b""
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _operation(service: str, environ: Environ, body: bytes) -> tuple[str, dict[str, Any]]:
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return target.rpartition(".")[2], json.loads(body or b"{}")
    if environ["PATH_INFO"].startswith("/service/") and "/operation/" in environ["PATH_INFO"]:
        return environ["PATH_INFO"].rpartition("/")[2], {}  # smithy's CBOR protocol
    if get_service_model(service).protocol in ("query", "ec2"):
        form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        form |= dict(parse_qsl(environ.get("QUERY_STRING", "")))
        return form.pop("Action"), form
    return _rest(service, environ, body)


def _rest(service: str, environ: Environ, body: bytes) -> tuple[str, dict[str, Any]]:
    request = BackendRequest(environ, populate_request=False, shallow=True)
    operation, inside = get_service_router(service).match(request)
    parameters = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    parameters |= {name: unquote(value) for name, value in inside.items()}
    if service != "s3" and operation.name not in ("Invoke", "InvokeEndpoint") and body[:1] == b"{":
        parameters |= json.loads(body)
    return operation.name, parameters


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
