"""Reads one object with boto3, and reports its errors as this package's own.

Only a request for an object imports this module: boto3 costs more than all the rest. What is not foreseen here (no
credentials, no permission) leaves as it is, and becomes an internal error.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ReadTimeoutError,
)

from classify.errors import ClassifyError, FetchFailed, FetchTimeout, NotAnImage, S3Refused
from classify.image_types import SUPPORTED, too_large

_BROKEN = (ConnectionError, HTTPClientError, IncompleteReadError)


@lru_cache(maxsize=1)
def _s3() -> Any:
    retries = {"mode": "standard", "total_max_attempts": 3}
    return boto3.client("s3", config=Config(connect_timeout=2, read_timeout=5, retries=retries))


def read_object(bucket: str, key: str, max_bytes: int) -> bytes:
    """Return the object's bytes. Raise S3Refused, NotAnImage (empty), TooLarge, FetchFailed or FetchTimeout."""
    try:
        # One byte more than allowed tells a larger object, and never more than that is moved.
        response = _s3().get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{max_bytes}")
        body: bytes = response["Body"].read()
    except ClientError as error:
        raise error_of(error.response) from error
    except ReadTimeoutError as error:
        raise FetchTimeout("S3 took too long; try again.") from error
    except _BROKEN as error:
        raise FetchFailed("S3 could not be reached; try again.") from error
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    return body


def error_of(response: Mapping[str, Any]) -> ClassifyError:
    """Return the error that botocore's ClientError.response stands for."""
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if status == 416:  # there is no first byte in an object without bytes
        return NotAnImage(f"The object is empty. {SUPPORTED}")
    if status in (403, 404):
        # S3 itself tells the two apart only to those who may list.
        return S3Refused("The object does not exist, or may not be read; check the bucket and the key.")
    return FetchFailed(f"S3 could not give the object{' now; try again' if status >= 500 else ''}.")
