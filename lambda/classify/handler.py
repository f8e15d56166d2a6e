"""Lambda's entry point: an event in, an answer out; always a value within Lambda's time, never an exception."""

import json
import os
import time
from contextlib import suppress
from typing import Any

from classify import events, logic
from classify.deadline import Deadline
from classify.errors import INTERNAL, OK, OUTCOMES, ClassifyError, Outcome


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Return the answer as a JSON value to direct callers, and as the body of an HTTP response to the HTTP API."""
    started = time.monotonic()
    error: Exception | None = None
    request_id = str(getattr(context, "aws_request_id", ""))
    try:
        outcome, value = OK, _classify(event, Deadline.of_invocation(context), request_id)
    except Exception as raised:
        outcome, value, error = *_error_answer(raised), raised
    value["request_id"] = request_id
    _log(outcome, value, time.monotonic() - started, error)
    return _http_response(outcome, value) if events.is_http(event) else value


def _classify(event: Any, deadline: Deadline, request_id: str) -> dict[str, Any]:
    settings = logic.Settings.of_environment()
    request = events.parse(event, settings.max_bytes)
    output, timings = logic.classify(request, settings, deadline, request_id)
    return {
        "probabilities": output.probabilities,
        "predictions": output.predictions(request.top_k or settings.top_k),
        "label": output.label,
        "verdict": output.verdict,
        "threshold": output.threshold,
        "known": output.known,
        "model": output.model,
        "timings": timings,
    }


def _error_answer(error: Exception) -> tuple[Outcome, dict[str, Any]]:
    """Only a ClassifyError's own text is meant for the caller."""
    outcome, text = INTERNAL, "Something broke inside; the log tells more under this request id."
    if isinstance(error, ClassifyError):
        outcome, text = OUTCOMES[type(error)], str(error)
    return outcome, {"error": {"code": outcome.code, "message": text, "status": outcome.status}}


def _http_response(outcome: Outcome, value: dict[str, Any]) -> dict[str, Any]:
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    if outcome.retry_after is not None:
        headers["retry-after"] = str(outcome.retry_after)
    return {"statusCode": outcome.status, "headers": headers, "body": json.dumps(value), "isBase64Encoded": False}


def _log(outcome: Outcome, value: dict[str, Any], seconds: float, error: Exception | None) -> None:
    """Print one JSON line, the only place where inner errors are told. A caller's mistake needs no traceback."""
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
    causes = _chain(error.__cause__) if error.__cause__ else []
    return [f"{type(error).__name__}: {error}", *causes]


def _traceback(error: BaseException) -> str:
    import traceback  # a good answer needs none

    return "".join(traceback.format_exception(error))


if "AWS_LAMBDA_INITIALIZATION_TYPE" in os.environ:
    # While Lambda starts a sandbox it gives it more of a CPU than this function's memory buys later, and with
    # provisioned concurrency nobody waits for it. No connection is opened; what fails here fails again in the call.
    with suppress(Exception):
        logic.runtime()
