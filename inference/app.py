"""The HTTP application: SageMaker's two routes, what a request may look like, and what is answered.

The contract is docs/contracts/server-api.md.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inference import telemetry
from inference.admission import WorkQueue
from inference.classifier import Answer, Classifier
from inference.errors import Refused, busy
from inference.telemetry import AccessLog, Metrics, Timings

MOST_PICTURES = 16  # in a list

_UPLOADS = 64  # bodies that are read at a time; with max_bytes the memory that slow callers can take
_READ_SECONDS = 20.0
_WORK_SECONDS = 30.0  # with the reading inside the 60 seconds that SageMaker waits

_JSON, _CSV = "application/json", "text/csv"
_CONTENT_TYPES = ("application/x-image", "application/octet-stream", _JSON)  # and image/*
_ACCEPTED = {_JSON: _JSON, "application/*": _JSON, "*/*": _JSON, _CSV: _CSV, "text/*": _CSV}

Result = Answer | Refused  # for one picture


def build(classifier: Classifier, *, workers: int, metrics: Metrics, max_bytes: int, model: str = "") -> Starlette:
    """Return the ASGI application; `workers`: pictures that are worked on at a time, `model`: named in answers."""
    routes = _Routes(classifier, workers, metrics, max_bytes, model)
    return Starlette(
        routes=[Route("/ping", routes.ping), Route("/invocations", routes.invocations, methods=["POST"])],
        exception_handlers={HTTPException: _http_error},
        middleware=[Middleware(AccessLog, metrics=metrics)],
    )


class _Routes:
    def __init__(self, classifier: Classifier, workers: int, metrics: Metrics, max_bytes: int, model: str) -> None:
        self._classifier, self._metrics, self._max_bytes, self._model = classifier, metrics, max_bytes, model
        self._uploads, self._queue = asyncio.Semaphore(_UPLOADS), WorkQueue(workers, _WORK_SECONDS)

    async def ping(self, request: Request) -> Response:
        return Response(status_code=200 if self._classifier.healthy else 503)

    async def invocations(self, request: Request) -> Response:
        timings = Timings()
        try:
            response = await self._answer(request, timings)
        except Refused as error:
            response = _error_response(error)
        except ClientDisconnect:
            return Response(status_code=400)  # for the log; nobody is there to read it
        except Exception:  # whose text is not for callers
            telemetry.failure("failed")
            response = _error_response(Refused(500, "internal_error", "The server failed on this request."))
        response.headers["Server-Timing"] = timings.header()
        return response

    async def _answer(self, request: Request, timings: Timings) -> Response:
        csv, is_list = _wants_csv(request.headers), _is_list(request.headers)
        body = await self._read(request)
        classify = self._classifier.classify
        if is_list:
            works = [partial(_classify_base64, classify, text) for text in _pictures_of(body)]
        else:
            works = [partial(classify, body)]
        results = await self._work(request, works, timings)
        if not is_list and isinstance(results[0], Refused):
            raise results[0]
        if not telemetry.is_probe(request.scope):
            self._metrics.note(timings)
        if csv:
            return _csv_response(results)
        about = {"classes": self._classifier.classes, "threshold": self._classifier.threshold, "model": self._model}
        answered = [{"error": _error(one)} if isinstance(one, Refused) else vars(one) for one in results]
        content = {"results": answered} if is_list else answered[0]
        return JSONResponse({**content, **about, "timings": timings.rounded()})

    async def _read(self, request: Request) -> bytes:
        if self._uploads.locked():
            raise busy(retry_after=1)
        async with self._uploads:
            try:
                return await asyncio.wait_for(_read_body(request, self._max_bytes), _READ_SECONDS)
            except TimeoutError as error:
                message = f"The body did not arrive within {_READ_SECONDS:g} seconds."
                raise Refused(408, "request_timeout", message, {"Connection": "close"}) from error

    async def _work(
        self, request: Request, works: Sequence[Callable[[Timings], Answer]], timings: Timings
    ) -> list[Result]:
        """Return a result for each picture; raise Refused (429, 504), ClientDisconnect, and what the work raises."""
        self._queue.admit(len(works))
        times = [Timings() for _ in works]
        jobs = [self._queue.submit(partial(_result, work, mine)) for work, mine in zip(works, times, strict=True)]
        done = asyncio.gather(*jobs)
        disconnected: asyncio.Future[Any] = asyncio.ensure_future(request.receive())  # all that can follow the body
        either: set[asyncio.Future[Any]] = {done, disconnected}
        try:
            await asyncio.wait(either, timeout=_WORK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                for (_, waited), mine in zip(done.result(), times, strict=True):
                    mine.queue_ms = 1000 * waited
                    timings.add(mine)
                return [result for result, _ in done.result()]
            if disconnected.done():
                raise ClientDisconnect
        finally:
            for future in either:
                future.cancel()
        raise Refused(504, "deadline_exceeded", f"The server did not finish within {_WORK_SECONDS:g} seconds.")


def _is_list(headers: Headers) -> bool:
    """Return whether the body is a JSON list; no Content-Type counts as octet-stream. Raise Refused (415)."""
    kind = _media_type(headers.get("content-type", "")) or "application/octet-stream"
    if not kind.startswith("image/") and kind not in _CONTENT_TYPES:
        message = f"Content-Type {kind[:100]} is not supported; send image/jpeg or another image, or application/json."
        raise Refused(415, "unsupported_image", message)
    return kind == _JSON


def _wants_csv(headers: Headers) -> bool:
    """Return whether CSV is preferred; JSON wins where there is a choice. Raise Refused (406)."""
    ranges = [part for line in headers.getlist("accept") for part in line.split(",") if part.strip()]
    known = [
        (_quality(part), _ACCEPTED[_media_type(part)]) for part in ranges or ["*/*"] if _media_type(part) in _ACCEPTED
    ]
    best = max((quality for quality, _ in known), default=0.0)
    if best <= 0:
        raise Refused(406, "not_acceptable", "The answer is application/json or text/csv; accept one of them.")
    return (best, _JSON) not in known


def _media_type(value: str) -> str:
    return value.split(";")[0].strip().lower()


def _quality(part: str) -> float:
    """Return the weight after `;q=`; 1 where there is none or it is no number."""
    given: Any = next((text.strip()[2:] for text in part.split(";")[1:] if text.strip().lower().startswith("q=")), "1")
    try:
        return float(given)
    except ValueError:
        return 1.0


async def _read_body(request: Request, max_bytes: int) -> bytes:
    """Return the whole body; raise Refused (413) as soon as it is known to be longer than `max_bytes`."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


def _too_large(max_bytes: int) -> Refused:
    return Refused(413, "too_large", f"The body has more than {max_bytes} bytes; send a smaller picture.")


def _pictures_of(body: bytes) -> list[str]:
    """Return the base64 texts of {"images": [...]}; raise Refused (400, 413)."""
    refused = Refused(
        400, "invalid_request", 'The body must be {"images": ["<base64>", ...]} with at least one picture.'
    )
    try:
        found = json.loads(body)
    # UnicodeDecodeError and JSONDecodeError are ValueErrors; deep nesting ends in RecursionError.
    except (ValueError, RecursionError) as error:
        raise refused from error
    texts = found.get("images") if isinstance(found, dict) else None
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise refused
    if len(texts) > MOST_PICTURES:
        message = f"The list has {len(texts)} pictures; send at most {MOST_PICTURES} in a request."
        raise Refused(413, "too_large", message)
    return texts


def _classify_base64(classify: Callable[[bytes, Timings], Answer], text: str, timings: Timings) -> Answer:
    try:
        body = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Refused(400, "not_an_image", "The picture is not in base64.") from error
    return classify(body, timings)


def _result(work: Callable[[Timings], Answer], timings: Timings) -> Result:
    try:
        return work(timings)
    except Refused as refused:
        return refused


def _csv_response(results: Sequence[Result]) -> Response:
    """Return one line for each picture: probabilities, then score and 1 for known or 0; empty for a refused one."""
    lines = ["" if isinstance(result, Refused) else ",".join(map(repr, _columns(result))) for result in results]
    return Response("\n".join(lines) + "\n", media_type=_CSV)


def _columns(answer: Answer) -> list[float]:
    known = answer.known
    return answer.probabilities + ([known["score"], int(known["is_known"])] if known else [])


def _error(error: Refused) -> Mapping[str, str | int]:
    content: dict[str, str | int] = {"code": error.code, "message": error.message}
    if error.headers and "Retry-After" in error.headers:
        content["retry_after"] = int(error.headers["Retry-After"])  # SageMaker drops a container's headers
    return content


def _error_response(error: Refused) -> Response:
    return JSONResponse({"error": _error(error)}, error.status, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer Starlette's own errors: no such path, no such method."""
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).name.lower()
    message = f"{error.detail}; POST /invocations and GET /ping are served."
    response = _error_response(Refused(error.status_code, code, message, error.headers))
    response.headers["Server-Timing"] = Timings().header()
    return response
