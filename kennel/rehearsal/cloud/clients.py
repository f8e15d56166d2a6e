"""boto3 clients of the one embedded AWS of this process."""

from __future__ import annotations

from functools import cache
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]

from kennel.rehearsal.cloud.ledger import REGION

ADMIN = {"AWS_ACCESS_KEY_ID": "AKIAKENNELREHEARSAL0", "AWS_SECRET_ACCESS_KEY": "rehearsal"}


class _Place:
    url = ""


def point_to(url: str) -> None:
    """Make all clients from now on for the embedded AWS at `url`."""
    _Place.url = url
    admin.cache_clear()


def make_client(service: str, environment: dict[str, str]) -> Any:
    """A client with the AWS_* variables of `environment`, no retries and patience for slow endpoints."""
    session = boto3.session.Session(
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=environment.get("AWS_SESSION_TOKEN"),
        region_name=REGION,
    )
    config = Config(retries={"total_max_attempts": 1}, read_timeout=900, max_pool_connections=32)
    return session.client(service, endpoint_url=_Place.url, config=config)


@cache
def admin(service: str) -> Any:
    return make_client(service, ADMIN)
