"""Reads images from S3, below the prefixes that the stack allows."""

import re
from collections.abc import Collection

from classify.deadline import Deadline
from classify.errors import FetchTimeout, InvalidRequest, S3Refused

_URI = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.{1,1024})", re.DOTALL)


def read(uri: str, allowed: Collection[str], max_bytes: int, deadline: Deadline) -> bytes:
    """Return the object's bytes. Raise InvalidRequest, FetchError or ImageError. `allowed`: `bucket/folder/` each."""
    bucket, key = _parse(uri)
    # Keys are compared as they are: to S3, "photos/../models/x" lies in photos/. Not every proxy agrees.
    is_allowed = any(f"{bucket}/{key}".startswith(prefix) for prefix in allowed)
    if not is_allowed or {".", ".."} & set(key.split("/")):
        raise S3Refused("Images are not read from there; use a bucket and a prefix that the stack allows.")
    try:
        return deadline.run(lambda: _get(bucket, key, max_bytes))
    except TimeoutError as error:
        raise FetchTimeout("S3 took too long; try again.") from error


def _get(bucket: str, key: str, max_bytes: int) -> bytes:
    from classify import aws  # importing boto3 counts against the deadline too

    return aws.read_object(bucket, key, max_bytes)


def _parse(uri: str) -> tuple[str, str]:
    found = _URI.fullmatch(uri)
    # JSON can carry halves of surrogate pairs, which no key has.
    if not found or any("\ud800" <= letter <= "\udfff" for letter in uri):
        raise InvalidRequest("s3_uri must look like s3://bucket/key.")
    return found[1], found[2]
