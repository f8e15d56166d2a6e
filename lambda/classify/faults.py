"""Reads the error answers of S3 and of SageMaker's runtime; pure, so that each can be looked at alone."""

from collections.abc import Mapping
from typing import Any

from classify.errors import (
    BadAnswer,
    EndpointThrottled,
    EndpointUnavailable,
    FetchFailed,
    NoModel,
    NotAnImage,
    Problem,
    S3Refused,
    TooLarge,
    UnsupportedImage,
)
from classify.pictures import SEND

_THROTTLED = ("ThrottlingException", "ThrottledException", "Throttling", "TooManyRequestsException", "SlowDown")
_BUSY = "The model has too much to do; try again in a moment."
_BROKEN = "The model could not answer; try again, and look at the endpoint's log if that does not help."


class Unforeseen(Exception):
    """AWS said something that this function's own deployment has caused; for the log, not for the caller."""


def _read(response: Mapping[str, Any]) -> tuple[str, str, int]:
    error = response.get("Error", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return str(error.get("Code", "")), str(error.get("Message", "")), int(status)


def of_s3(response: Mapping[str, Any]) -> Problem:
    code, _, status = _read(response)
    if status == 416:  # no first byte in an object without bytes
        return NotAnImage(f"The object is empty. {SEND}")
    if status in (403, 404):
        # S3 itself tells the two apart only to those who may list.
        return S3Refused("The object does not exist, or may not be read; check the bucket and the key.")
    return FetchFailed(
        f"S3 could not give the object{' now; try again' if status >= 500 or code in _THROTTLED else ''}."
    )


def of_endpoint(response: Mapping[str, Any]) -> Exception:
    """A Problem, or Unforeseen for what no caller can help."""
    code, message, status = _read(response)
    if code == "ModelError":
        return _of_container(int(response.get("OriginalStatusCode") or 0))
    if code == "ValidationError" and "not found" in message.lower():
        return NoModel("No model is released yet: run the training pipeline, then approve the model package it makes.")
    if code in _THROTTLED or status == 429:
        return EndpointThrottled(_BUSY, again=True)
    if status >= 500:
        return EndpointUnavailable(_BROKEN, again=True)
    return Unforeseen(f"{code} ({status}): {message}")


def _of_container(status: int) -> Problem:
    """From the status with which the inference server answered."""
    refusals: dict[int, Problem] = {
        400: NotAnImage(f"The picture cannot be decoded; it may be damaged or cut short. {SEND}"),
        413: TooLarge("The picture has too many bytes or pixels; send a smaller one."),
        415: UnsupportedImage(f"Pictures of this kind are not supported. {SEND}"),
        429: EndpointThrottled(_BUSY, again=True),
        503: EndpointUnavailable(_BUSY, again=True),
    }
    if status in refusals:
        return refusals[status]
    if 400 <= status < 500:
        return BadAnswer("The model does not understand this function; look at the endpoint's log.")
    # The same bytes would most likely break it again.
    return EndpointUnavailable(_BROKEN)
