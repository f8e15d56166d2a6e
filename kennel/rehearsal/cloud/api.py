"""One call of an AWS API over HTTP: read from the request, and answered in the protocol of its service."""

import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import UnknownServiceError  # type: ignore[import-untyped]
from moto.core.routing import get_service_router
from moto.core.serialize import get_serializer_class
from moto.core.utils import get_service_model
from moto.moto_server.werkzeug_app import BackendRequest
from werkzeug.datastructures import EnvironHeaders, Headers
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

Environ = dict[str, Any]

# Credential scopes that do not name botocore's service.
_SERVICES = {"monitoring": "cloudwatch", "servicequotas": "service-quotas"}
_RUNTIME = re.compile(r"/endpoints/[^/]+/(invocations|async-invocations|invocations-response-stream)$")


@dataclass(frozen=True)
class Call:
    """One API call; `parameters` are its members, for S3 only Bucket, Key and the query.

    `role` is the ARN of the role that called; None: the administrator.
    """

    service: str
    operation: str
    parameters: dict[str, Any]
    body: bytes
    role: str | None
    region: str
    headers: Headers


def parse(environ: Environ, service: str, region: str, role: str | None, body: bytes) -> Call:
    """Return the call of a request to `service` by `role`."""
    body = b"" if service == "s3" else body  # an object is no parameters
    try:
        operation, parameters = _operation(service, environ, body)
    except (NotFound, NotImplementedError, UnknownServiceError, ValueError, KeyError):
        operation, parameters = "Unknown", {}
    return Call(service, operation, parameters, body, role, region, EnvironHeaders(environ))


def service_of(scope: str, path: str) -> str:
    """Return botocore's name of the service that a credential's scope names."""
    if scope == "sagemaker" and _RUNTIME.search(path):
        return "sagemaker-runtime"
    return _SERVICES.get(scope, scope)


def _operation(service: str, environ: Environ, body: bytes) -> tuple[str, dict[str, Any]]:
    request = BackendRequest({**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
    operation, in_path = get_service_router(service).match(request)
    parameters = {**request.values.to_dict(), **in_path}
    if operation.name not in ("Invoke", "InvokeEndpoint") and body[:1] == b"{":
        parameters |= json.loads(body)
    return operation.name, parameters


Handler = Callable[[Call], Response | None]  # None: moto answers


class ApiError(Exception):
    """An error that the caller of the API gets: AWS's code, the text, the HTTP status and further members."""

    def __init__(self, code: str, message: str, status: int = 400, **members: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status
        self.__dict__.update(members)


def json_answer(result: Mapping[str, Any]) -> Response:
    """Return `result` as JSON, with times as numbers of seconds."""
    return Response(json.dumps(result, default=datetime.timestamp), content_type="application/x-amz-json-1.1")


def error_answer(service: str, error: ApiError) -> Response:
    """Return `error` in the protocol of `service`, which is S3's where nobody knows the service."""
    try:
        model = get_service_model(service)
    except UnknownServiceError:
        service, model = "s3", get_service_model("s3")
    operation = model.operation_model(model.operation_names[0])  # any: errors belong to the service
    serializer = get_serializer_class(service, model.resolved_protocol)(operation)
    found = serializer.serialize(error)
    return Response(found["body"], error.status, found["headers"])
