"""The only module that holds boto3: two calls, whose failures leave as this function's own problems.

What these do not foresee (no credentials, no permission) leaves as it is, and becomes an internal error.
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

from classify import faults
from classify.errors import EndpointUnavailable, FetchFailed, FetchTimeout
from classify.pictures import too_large

_BROKEN = (ConnectionError, HTTPClientError, IncompleteReadError)


@lru_cache(maxsize=1)
def _s3() -> Any:
    return boto3.client(
        "s3",
        config=Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3}),
    )


@lru_cache(maxsize=1)
def _runtime() -> Any:
    """Retries are `classify.endpoint`'s, which knows the caller's deadline."""
    return boto3.client(
        "sagemaker-runtime",
        config=Config(connect_timeout=2, read_timeout=28, retries={"total_max_attempts": 1}),
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


def invoke_endpoint(endpoint: str, body: bytes, kind: str) -> bytes:
    """The container's answer. `kind`: the body's media type. Raises EndpointProblem's and BadPicture's kinds."""
    try:
        response = _runtime().invoke_endpoint(
            EndpointName=endpoint, Body=body, ContentType=kind, Accept="application/json"
        )
        answer: bytes = response["Body"].read()
    except ClientError as error:
        raise faults.of_endpoint(error.response) from error
    except ReadTimeoutError as error:
        raise EndpointUnavailable("The model did not answer in time; try again.") from error
    except _BROKEN as error:
        raise EndpointUnavailable("The model could not be reached; try again.", again=True) from error
    return answer
