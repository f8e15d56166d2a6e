"""SageMaker's two routes."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from inference import answers, logs, requests
from inference.access import AccessLog
from inference.admission import Line
from inference.answers import Result
from inference.classifier import Answers
from inference.errors import Refused
from inference.gate import Gate
from inference.metrics import Metrics
from inference.settings import Settings
from inference.timings import Timings

_UPLOADS = 64  # bodies that are read at a time; with MAX_BYTES the memory that slow callers can take
_READ_SECONDS = 20.0
_WORK_SECONDS = 30.0  # with the reading inside the 60 seconds that SageMaker waits


class _Routes:
    def __init__(self, classifier: Answers, settings: Settings, workers: int, metrics: Metrics) -> None:
        self._classifier, self._settings, self._metrics = classifier, settings, metrics
        self._uploads, self._line = Gate(_UPLOADS), Line(workers, _WORK_SECONDS)

    async def ping(self, request: Request) -> Response:
        return Response(status_code=200 if self._classifier.healthy else 503)

    async def invocations(self, request: Request) -> Response:
        timings = Timings()
        try:
            response = await self._answer(request, timings)
        except Refused as error:
            response = answers.refusal(error)
        except ClientDisconnect:
            return Response(status_code=400)  # for the log; nobody is there to read it
        except Exception:  # whose text is not for callers
            logs.failure("failed")
            response = answers.refusal(Refused(500, "internal_error", "The server failed on this request."))
        return answers.timed(response, timings)

    async def _answer(self, request: Request, timings: Timings) -> Response:
        csv, several = requests.wants_csv(request.headers), requests.is_list(request.headers)
        body = await self._read(request)
        classify = self._classifier.classify
        if several:
            works = [partial(_of_text, classify, text) for text in requests.pictures(body)]
        else:
            works = [partial(classify, body)]
        results = await self._work(request, works, timings)
        if not several and isinstance(results[0], Refused):
            raise results[0]
        self._metrics.note(timings)
        return self._response(results, timings, csv=csv, several=several)

    def _response(self, results: Sequence[Result], timings: Timings, *, csv: bool, several: bool) -> Response:
        facts = {
            "classes": self._classifier.classes,
            "threshold": self._classifier.threshold,
            "model": self._settings.model_package_arn,
            "timings": timings.rounded(),
        }
        if several:
            return answers.several(results, facts, csv=csv)
        assert isinstance(results[0], list)
        return answers.single(results[0], facts, csv=csv)

    async def _read(self, request: Request) -> bytes:
        with self._uploads:
            try:
                return await asyncio.wait_for(requests.read_body(request, self._settings.max_bytes), _READ_SECONDS)
            except TimeoutError as error:
                message = f"The body did not arrive within {_READ_SECONDS:g} seconds."
                raise Refused(408, "request_timeout", message, {"Connection": "close"}) from error

    async def _work(
        self, request: Request, works: Sequence[Callable[[Timings], list[float]]], timings: Timings
    ) -> list[Result]:
        """Raises Refused (503, 504), ClientDisconnect when nobody waits any more, and what the work raises."""
        self._line.admit(len(works))
        spent = [Timings() for _ in works]
        jobs = [self._line.join(partial(_result, work, mine)) for work, mine in zip(works, spent, strict=True)]
        done = asyncio.gather(*jobs)
        gone: asyncio.Future[Any] = asyncio.ensure_future(request.receive())  # all that can come after the body
        first: set[asyncio.Future[Any]] = {done, gone}
        try:
            await asyncio.wait(first, timeout=_WORK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return _gathered(done.result(), spent, timings)
            if gone.done():
                raise ClientDisconnect
        finally:
            for future in first:
                future.cancel()
        raise Refused(504, "deadline_exceeded", f"The server did not finish within {_WORK_SECONDS:g} seconds.")


def _of_text(classify: Callable[[bytes, Timings], list[float]], text: str, timings: Timings) -> list[float]:
    return classify(requests.from_base64(text), timings)


def _result(work: Callable[[Timings], list[float]], timings: Timings) -> Result:
    try:
        return work(timings)
    except Refused as refused:
        return refused


def _gathered(found: Sequence[tuple[Result, float]], spent: Sequence[Timings], timings: Timings) -> list[Result]:
    for (_, waited), mine in zip(found, spent, strict=True):
        mine.queue_ms = 1000 * waited
        timings.add(mine)
    return [result for result, _ in found]


def build(classifier: Answers, settings: Settings, workers: int, metrics: Metrics) -> Starlette:
    """The ASGI application; `workers`: pictures that are worked on at a time."""
    routes = _Routes(classifier, settings, workers, metrics)
    return Starlette(
        routes=[Route("/ping", routes.ping), Route("/invocations", routes.invocations, methods=["POST"])],
        exception_handlers={HTTPException: _http_error},
        middleware=[Middleware(AccessLog, metrics=metrics)],
    )


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, no such method."""
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).name.lower()
    message = f"{error.detail}; POST /invocations and GET /ping are served."
    return answers.timed(answers.refusal(Refused(error.status_code, code, message, error.headers)), Timings())
