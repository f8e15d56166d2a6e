"""The only module that holds boto3: one call, whose failures leave as this function's own problems.

Only a request for an object imports it: boto3 costs more than all the rest. What is not foreseen here (no credentials,
no permission) leaves as it is, and becomes an internal error.
"""

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

from classify import error_mapping as faults
from classify.errors import FetchFailed, FetchTimeout
from classify.pictures import too_large

_BROKEN = (ConnectionError, HTTPClientError, IncompleteReadError)


@lru_cache(maxsize=1)
def _s3() -> Any:
    return boto3.client(
        "s3",
        config=Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3}),
    )


def read_object(bucket: str, key: str, max_bytes: int) -> bytes:
    """The object's bytes. Raises S3Refused, NotAnImage (empty), TooLarge, FetchFailed or FetchTimeout."""
    try:
        # One byte more than wanted tells a larger object, and never more than that is moved.
        response = _s3().get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{max_bytes}")
        body: bytes = response["Body"].read()
    except ClientError as error:
        raise faults.of_s3(error.response) from error
    except ReadTimeoutError as error:
        raise FetchTimeout("S3 took too long; try again.") from error
    except _BROKEN as error:
        raise FetchFailed("S3 could not be reached; try again.") from error
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    return body
