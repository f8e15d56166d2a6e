"""Reads the error answers of S3 and of SageMaker's runtime; pure, so that each can be looked at alone."""

import json
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
from classify.sagemaker_runtime import Response

_THROTTLED = ("ThrottlingException", "ThrottledException", "Throttling", "TooManyRequestsException", "SlowDown")
_LATE = ("InvalidSignatureException", "RequestExpired")  # signed before the sandbox was frozen (aws-sdk-js-v3#7605)
_BUSY = "The model has too much to do; try again in a moment."
_BROKEN = "The model could not answer; try again, and look at the endpoint's log if that does not help."


class Unforeseen(Exception):
    """AWS said something that this function's own deployment has caused; for the log, not for the caller."""


def of_s3(response: Mapping[str, Any]) -> Problem:
    """From botocore's ClientError.response."""
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if status == 416:  # no first byte in an object without bytes
        return NotAnImage(f"The object is empty. {SEND}")
    if status in (403, 404):
        # S3 itself tells the two apart only to those who may list.
        return S3Refused("The object does not exist, or may not be read; check the bucket and the key.")
    return FetchFailed(
        f"S3 could not give the object{' now; try again' if status >= 500 or code in _THROTTLED else ''}."
    )


def of_endpoint(answer: Response) -> Exception:
    """A Problem, or Unforeseen for what no caller can help; its cause holds what the service said, for the log."""
    fields = _fields(answer.body)
    # As botocore reads it: the header before the body, and no more than the name.
    code = (answer.error_type or str(fields.get("__type") or fields.get("code") or "")).split(":")[0].split("#")[-1]
    message = str(fields.get("message") or fields.get("Message") or "")
    said = Unforeseen(f"{code} ({answer.status}): {message}")
    problem = _of_service(code, message, answer.status, fields.get("OriginalStatusCode"))
    if problem is None:
        return said
    problem.__cause__ = said
    return problem


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _of_service(code: str, message: str, status: int, original: Any) -> Problem | None:
    if code == "ModelError":
        return _of_container(original if isinstance(original, int) else 0)
    if code == "ValidationError" and "not found" in message.lower():
        return NoModel("No model is released yet: run the training pipeline, then approve the model package it makes.")
    if code in _THROTTLED or status == 429:
        return EndpointThrottled(_BUSY, again=True)
    if status >= 500:
        return EndpointUnavailable(_BROKEN, again=True)
    if code in _LATE and "expired" in message.lower():
        return EndpointUnavailable(_BROKEN, again=True)  # each attempt is signed anew
    return None


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
