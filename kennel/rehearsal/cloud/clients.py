"""The account of the one embedded AWS of this process, and boto3 clients of it."""

import threading
from functools import cache
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]

ACCOUNT, REGION = "123456789012", "us-east-1"
ADMIN = {"AWS_ACCESS_KEY_ID": "AKIAKENNELREHEARSAL0", "AWS_SECRET_ACCESS_KEY": "rehearsal"}

_making = threading.Lock()  # a session makes one client at a time


class _Place:
    url = ""


def point_to(url: str) -> None:
    """Make all clients from now on for the embedded AWS at `url`."""
    _Place.url = url
    admin.cache_clear()


def make_client(service: str, environment: dict[str, str]) -> Any:
    """A client with the AWS_* variables of `environment`, no retries and patience for slow endpoints."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=900, max_pool_connections=32)
    with _making:
        return _session().client(
            service,
            endpoint_url=_Place.url,
            config=config,
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=environment.get("AWS_SESSION_TOKEN"),
        )


@cache
def _session() -> Any:
    """One for all clients: each session reads botocore's data files anew."""
    return boto3.session.Session(region_name=REGION)


@cache
def admin(service: str) -> Any:
    return make_client(service, ADMIN)
