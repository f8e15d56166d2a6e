"""A log line for each request, and its count."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference import logs
from inference.metrics import Metrics


class AccessLog:
    """ASGI middleware. Health checks that went well are left out: they come every few seconds for ever."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start, status, received = time.perf_counter(), 500, 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, counted, watched)
        finally:
            if scope["path"] == "/invocations":
                self._metrics.count(status)
            if scope["path"] != "/ping" or status != 200:
                milliseconds = round(1000 * (time.perf_counter() - start), 1)
                path, method = scope["path"][:200], scope["method"]
                logs.event("request", method=method, path=path, status=status, bytes=received, ms=milliseconds)
