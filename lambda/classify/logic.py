"""Classifies one request: fetch the image, check its type, call the endpoint, read its answer.

What an image in the request does not need (TLS to foreign hosts, boto3) is imported by the requests that need it.
"""

import os
import time
from functools import lru_cache
from typing import NamedTuple, Self

from classify.deadline import Deadline
from classify.events import Request
from classify.image_types import media_type
from classify.model_output import ModelOutput
from classify.sagemaker_runtime import SageMakerRuntime

# Fetching may take this share of the time left, and at most so many seconds: the endpoint must still be called.
_FETCH_SHARE, _FETCH_SECONDS = 0.6, 10.0

runtime = lru_cache(maxsize=1)(SageMakerRuntime)  # the sandbox's client, made by its first call


class Settings(NamedTuple):
    """The stack's settings: `allowed_s3_prefixes` are `bucket/folder/` each; `max_bytes` is the limit of one image."""

    endpoint_name: str
    allowed_s3_prefixes: tuple[str, ...]
    top_k: int
    max_bytes: int

    @classmethod
    @lru_cache(maxsize=1)
    def of_environment(cls) -> Self:
        """Return the settings, read once per sandbox. Raise KeyError or ValueError where one is missing or wrong."""
        given = os.environ.get("ALLOWED_S3_PREFIXES", "").split(",")
        return cls(
            endpoint_name=os.environ["ENDPOINT_NAME"],
            allowed_s3_prefixes=tuple(f"{prefix.strip().strip('/')}/" for prefix in given if prefix.strip(" /")),
            top_k=int(os.environ.get("TOP_K", "5")),
            max_bytes=int(os.environ.get("MAX_BYTES", "6000000")),
        )


def classify(
    request: Request, settings: Settings, deadline: Deadline, request_id: str
) -> tuple[ModelOutput, dict[str, float]]:
    """Return the model's output, and the milliseconds that each part took. Raise every kind of ClassifyError."""
    timings = {}
    started = time.monotonic()
    image = _image(request, settings, deadline.earlier(_FETCH_SHARE, _FETCH_SECONDS))
    if request.source != "image":
        timings["fetch_ms"] = _milliseconds_since(started)
    kind = media_type(image, settings.max_bytes)
    started = time.monotonic()
    output = ModelOutput.of_json(runtime().invoke(settings.endpoint_name, image, kind, deadline, request_id))
    timings["endpoint_ms"] = _milliseconds_since(started)
    return output, timings | output.timings


def _image(request: Request, settings: Settings, deadline: Deadline) -> bytes:
    if isinstance(request.value, bytes):
        return request.value
    if request.source == "url":
        from classify.fetch import fetch

        return fetch(request.value, settings.max_bytes, deadline)
    from classify.objects import read

    return read(request.value, settings.allowed_s3_prefixes, settings.max_bytes, deadline)


def _milliseconds_since(started: float) -> float:
    return round(1000 * (time.monotonic() - started), 2)
