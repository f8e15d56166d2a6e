"""Reads images from S3, below the prefixes that the stack allows, and reports S3's errors as this package's own.

boto3 costs more than all the rest, so it is imported by the first request for an allowed object. What is not foreseen
here (no credentials, no permission) leaves as it is, and becomes an internal error.
"""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from classify.deadline import Deadline
from classify.errors import ClassifyError, FetchFailed, FetchTimeout, InvalidRequest, NotAnImage, S3Refused
from classify.image_types import SUPPORTED, too_large

_URI = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.{1,1024})", re.DOTALL)


def read(uri: str, allowed: Collection[str], max_bytes: int, deadline: Deadline) -> bytes:
    """Return the object's bytes. Raise InvalidRequest, FetchError or ImageError. `allowed`: `bucket/folder/` each."""
    bucket, key = _parse(uri)
    # Keys are compared as they are: to S3, "photos/../models/x" lies in photos/. Not every proxy agrees.
    is_allowed = any(f"{bucket}/{key}".startswith(prefix) for prefix in allowed)
    if not is_allowed or {".", ".."} & set(key.split("/")):
        raise S3Refused("Images are not read from there; use a bucket and a prefix that the stack allows.")
    try:
        return deadline.run(lambda: _get(bucket, key, max_bytes))  # boto3's import counts against the deadline too
    except TimeoutError as error:
        raise FetchTimeout("S3 took too long; try again.") from error


def _parse(uri: str) -> tuple[str, str]:
    found = _URI.fullmatch(uri)
    # JSON can carry halves of surrogate pairs, which no key has.
    if not found or any("\ud800" <= letter <= "\udfff" for letter in uri):
        raise InvalidRequest("s3_uri must look like s3://bucket/key.")
    return found[1], found[2]


def _get(bucket: str, key: str, max_bytes: int) -> bytes:
    from botocore import exceptions  # type: ignore[import-untyped]

    broken = (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError)
    try:
        # One byte more than allowed tells a larger object, and never more than that is moved.
        response = s3_client().get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{max_bytes}")
        body: bytes = response["Body"].read()
    except exceptions.ClientError as error:
        raise error_of(error.response) from error
    except exceptions.ReadTimeoutError as error:
        raise FetchTimeout("S3 took too long; try again.") from error
    except broken as error:
        raise FetchFailed("S3 could not be reached; try again.") from error
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    return body


@lru_cache(maxsize=1)
def s3_client() -> Any:
    """Return the sandbox's client of S3."""
    import boto3  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]

    retries = {"mode": "standard", "total_max_attempts": 3}
    return boto3.client("s3", config=Config(connect_timeout=2, read_timeout=5, retries=retries))


def error_of(response: Mapping[str, Any]) -> ClassifyError:
    """Return the error that botocore's ClientError.response stands for."""
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if status == 416:  # there is no first byte in an object without bytes
        return NotAnImage(f"The object is empty. {SUPPORTED}")
    if status in (403, 404):
        # S3 itself tells the two apart only to those who may list.
        return S3Refused("The object does not exist, or may not be read; check the bucket and the key.")
    return FetchFailed(f"S3 could not give the object{' now; try again' if status >= 500 else ''}.")
