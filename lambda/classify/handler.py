"""Event in, answer out: always a value, within the time that Lambda gives, never an exception."""

import json
import os
import time
from typing import Any

from classify import events, logic
from classify import sagemaker_runtime as runtime
from classify.deadline import Deadline
from classify.errors import INTERNAL, OUTCOMES, Outcome, Problem
from classify.settings import Settings

_OK = Outcome("ok", 200)


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Lambda's entry point. Direct callers get the JSON value, the HTTP API the same as a body with its status."""
    return respond(event, context, logic.fetch)


def respond(event: Any, context: Any, fetch: logic.Fetch) -> dict[str, Any]:
    """As `handler`, with a way to fetch that tests may bring."""
    started = time.monotonic()
    error: Exception | None = None
    try:
        outcome, value = _OK, _classify(event, Deadline.of(context), fetch)
    except Exception as problem:
        outcome, value, error = *_refusal(problem), problem
    value["request_id"] = str(getattr(context, "aws_request_id", ""))
    _log(outcome, value, time.monotonic() - started, error)
    return _http(outcome, value) if events.is_http(event) else value


def _classify(event: Any, deadline: Deadline, fetch: logic.Fetch) -> dict[str, Any]:
    settings = Settings.from_environment()
    request = events.parse(event, settings.max_bytes)
    answer, timings = logic.classify(request, settings, deadline, fetch)
    return {
        "probabilities": answer.probabilities,
        "predictions": answer.predictions(request.top_k or settings.top_k),
        "label": answer.label,
        "threshold": answer.threshold,
        "model": answer.model,
        "timings": timings,
    }


def _refusal(problem: Exception) -> tuple[Outcome, dict[str, Any]]:
    """Only a Problem's own text is meant for the caller."""
    outcome, text = INTERNAL, "Something broke inside; the log tells more under this request id."
    if isinstance(problem, Problem):
        outcome, text = OUTCOMES[type(problem)], str(problem)
    return outcome, {"error": {"code": outcome.code, "message": text, "status": outcome.status}}


def _http(outcome: Outcome, value: dict[str, Any]) -> dict[str, Any]:
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    if outcome.retry_after is not None:
        headers["retry-after"] = str(outcome.retry_after)
    return {"statusCode": outcome.status, "headers": headers, "body": json.dumps(value), "isBase64Encoded": False}


def _log(outcome: Outcome, value: dict[str, Any], seconds: float, error: Exception | None) -> None:
    """One JSON line; what inner errors said goes here, and only here. A caller's own mistake needs no traceback."""
    line: dict[str, Any] = {
        "level": "INFO" if outcome.status < 500 else "ERROR",
        "request_id": value["request_id"],
        "code": outcome.code,
        "status": outcome.status,
        "milliseconds": round(1000 * seconds, 1),
    }
    if "timings" in value:
        line["timings"] = value["timings"]
    if error is not None:
        line["error"] = _traceback(error) if outcome.status >= 500 else " <- ".join(_chain(error))
    print(json.dumps(line), flush=True)


def _chain(error: BaseException) -> list[str]:
    cause = _chain(error.__cause__) if error.__cause__ else []
    return [f"{type(error).__name__}: {error}", *cause]


def _traceback(error: BaseException) -> str:
    import traceback  # a good answer needs none

    return "".join(traceback.format_exception(error))


if "AWS_LAMBDA_INITIALIZATION_TYPE" in os.environ:
    # While Lambda starts a sandbox it gives it more of a CPU than this function's memory buys later, and with
    # provisioned concurrency nobody waits for it.
    runtime.prepare()
