"""The account of the one embedded AWS of this process, and boto3 clients of it."""

import threading
from functools import cache
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]

ACCOUNT, REGION = "123456789012", "us-east-1"
ADMIN = {"AWS_ACCESS_KEY_ID": "AKIAKENNELREHEARSAL0", "AWS_SECRET_ACCESS_KEY": "rehearsal"}

_creating = threading.Lock()  # a session creates one client at a time


class _Server:
    url = ""


def use_server(url: str) -> None:
    """Create all clients from now on for the embedded AWS at `url`."""
    _Server.url = url
    admin.cache_clear()


def create_client(service: str, environment: dict[str, str]) -> Any:
    """Return a client with the AWS_* variables of `environment`, without retries and patient with slow endpoints."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=900, max_pool_connections=32)
    with _creating:
        return _session().client(
            service,
            endpoint_url=_Server.url,
            config=config,
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=environment.get("AWS_SESSION_TOKEN"),
        )


@cache
def _session() -> Any:
    """Return the one session of all clients: each session reads botocore's data files anew."""
    return boto3.session.Session(region_name=REGION)


@cache
def admin(service: str) -> Any:
    """Return a client that may do everything."""
    return create_client(service, ADMIN)


def send_to_queue(arn: str, body: str) -> None:
    """Send a message to an SQS queue, as a service does with a dead letter."""
    url = admin("sqs").get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
    admin("sqs").send_message(QueueUrl=url, MessageBody=body)
