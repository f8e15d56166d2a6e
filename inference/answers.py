"""What is sent back."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from inference.errors import Refused
from inference.timings import Timings

Result = list[float] | Refused  # one picture's probabilities, or why there are none


def single(probabilities: list[float], facts: Mapping[str, Any], *, csv: bool) -> Response:
    return _csv([probabilities]) if csv else JSONResponse({"probabilities": probabilities, **facts})


def several(results: Sequence[Result], facts: Mapping[str, Any], *, csv: bool) -> Response:
    """In the order of the request; a picture that was refused does not spoil the others."""
    if csv:
        return _csv(results)
    found = [{"error": told(r)} if isinstance(r, Refused) else {"probabilities": r} for r in results]
    return JSONResponse({"results": found, **facts})


def refusal(error: Refused) -> Response:
    return JSONResponse({"error": told(error)}, error.status, error.headers)


def told(error: Refused) -> dict[str, str]:
    return {"code": error.code, "message": error.message}


def timed(response: Response, timings: Timings) -> Response:
    response.headers["Server-Timing"] = timings.header()
    return response


def _csv(results: Sequence[Result]) -> Response:
    """A line a picture; empty for one that was refused."""
    lines = ["" if isinstance(result, Refused) else ",".join(map(repr, result)) for result in results]
    return Response("\n".join(lines) + "\n", media_type="text/csv")
