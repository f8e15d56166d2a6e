"""SageMaker's two routes."""

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inference.access import AccessLog
from inference.errors import Refused
from inference.gate import Gate
from inference.requests import check_headers, read_body
from inference.settings import Settings

_UPLOADS = 64  # bodies that are read at a time; with MAX_BYTES the memory that slow callers can take
_QUEUED = 16  # whole bodies that wait for a worker
_WORKERS = min(4, os.cpu_count() or 1)  # each may hold a decoded picture of MAX_PIXELS
_READ_SECONDS = 20.0
_WORK_SECONDS = 30.0  # with the reading inside the 60 seconds that SageMaker waits


class Answers(Protocol):
    """What the routes need of inference.classifier.Classifier."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def threshold(self) -> float | None: ...

    @property
    def healthy(self) -> bool: ...

    def classify(self, body: bytes) -> list[float]: ...


class _Routes:
    def __init__(self, classifier: Answers, settings: Settings) -> None:
        self._classifier, self._settings = classifier, settings
        self._uploads, self._work = Gate(_UPLOADS), Gate(_WORKERS + _QUEUED)
        self._pool = ThreadPoolExecutor(_WORKERS, "classify")

    async def ping(self, request: Request) -> Response:
        return Response(status_code=200 if self._classifier.healthy else 503)

    async def invocations(self, request: Request) -> Response:
        check_headers(request.headers)
        try:
            body = await self._read(request)
        except ClientDisconnect:
            return Response(status_code=400)  # for the log; nobody is there to read it
        with self._work:
            probabilities = await self._classify(body)
        return JSONResponse(
            {
                "probabilities": probabilities,
                "classes": self._classifier.classes,
                "threshold": self._classifier.threshold,
                "model": self._settings.model_package_arn,
            }
        )

    async def _read(self, request: Request) -> bytes:
        with self._uploads:
            try:
                return await asyncio.wait_for(read_body(request, self._settings.max_bytes), _READ_SECONDS)
            except TimeoutError as error:
                message = f"The body did not arrive within {_READ_SECONDS:g} seconds."
                raise Refused(408, "request_timeout", message, {"Connection": "close"}) from error

    async def _classify(self, body: bytes) -> list[float]:
        job = asyncio.get_running_loop().run_in_executor(self._pool, self._classifier.classify, body)
        try:
            return await asyncio.wait_for(job, _WORK_SECONDS)
        except TimeoutError as error:
            message = f"The server did not finish within {_WORK_SECONDS:g} seconds; try again."
            raise Refused(503, "busy", message, {"Retry-After": "10"}) from error


def build(classifier: Answers, settings: Settings) -> Starlette:
    """The ASGI application; every answer but /ping's is JSON."""
    routes = _Routes(classifier, settings)
    return Starlette(
        routes=[Route("/ping", routes.ping), Route("/invocations", routes.invocations, methods=["POST"])],
        exception_handlers={Refused: _refused, HTTPException: _http_error, Exception: _internal_error},
        middleware=[Middleware(AccessLog)],
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _answer(error.status, error.code, error.message, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, no such method."""
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).name.lower()
    return _answer(
        error.status_code, code, f"{error.detail}; POST /invocations and GET /ping are served.", error.headers
    )


async def _internal_error(request: Request, error: Exception) -> Response:
    """Starlette raises the error again afterwards, and uvicorn logs it; its text is not for callers."""
    return _answer(500, "internal_error", "The server failed on this request.")


def _answer(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)
