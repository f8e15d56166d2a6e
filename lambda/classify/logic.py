"""From a request to an answer: bring the picture here, look at its kind, ask the model.

What a picture in the request does not need (TLS to strangers, boto3) is imported by the requests that do.
"""

import time
from collections.abc import Callable

from classify import answers, endpoint, pictures
from classify.answers import Answer
from classify.deadline import Deadline
from classify.events import Request
from classify.settings import Settings

# The picture's share of the time, and the most of it in seconds: the model must still be asked.
_SHARE, _LONGEST = 0.6, 10.0

Fetch = Callable[[str, int, Deadline], bytes]  # from a URL; at most so many bytes


def fetch(url: str, max_bytes: int, deadline: Deadline) -> bytes:
    """As Fetcher.fetch."""
    from classify.fetch import Fetcher

    return Fetcher().fetch(url, max_bytes, deadline)


def classify(request: Request, settings: Settings, deadline: Deadline, fetch: Fetch) -> tuple[Answer, dict[str, float]]:
    """The answer, and the milliseconds that its parts took. Raises every kind of Problem."""
    timings = {}
    began = time.monotonic()
    body = _bring(request, settings, deadline.part(_SHARE, _LONGEST), fetch)
    if request.source != "image":
        timings["fetch_ms"] = _milliseconds(began)
    kind = pictures.media_type(body, settings.max_bytes)
    began = time.monotonic()
    answer = answers.parse(endpoint.invoke(settings.endpoint_name, body, kind, deadline))
    timings["endpoint_ms"] = _milliseconds(began)
    return answer, timings | answer.timings


def _bring(request: Request, settings: Settings, deadline: Deadline, fetch: Fetch) -> bytes:
    if isinstance(request.value, bytes):
        return request.value
    if request.source == "url":
        return fetch(request.value, settings.max_bytes, deadline)
    from classify import objects

    return objects.read(request.value, settings.allowed_s3_prefixes, settings.max_bytes, deadline)


def _milliseconds(began: float) -> float:
    return round(1000 * (time.monotonic() - began), 2)
