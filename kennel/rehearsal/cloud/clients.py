"""The account of the one embedded AWS of this process, and boto3 clients of it."""

import threading
from functools import cache
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]

ACCOUNT, REGION = "123456789012", "us-east-1"
ADMIN = {"AWS_ACCESS_KEY_ID": "AKIAKENNELREHEARSAL0", "AWS_SECRET_ACCESS_KEY": "rehearsal"}
_SESSION_S = 43_200

_lock = threading.RLock()  # a boto3 session creates one client at a time


class _Server:
    url = ""


def use_server(url: str) -> None:
    """Create all clients from now on for the embedded AWS at `url`."""
    _Server.url = url
    _client.cache_clear()
    _credentials.cache_clear()


def client(service: str, role_arn: str | None = None) -> Any:
    """Return a boto3 client as admin, or with credentials of that role; the same one for the same arguments.

    It does not retry, and waits up to 15 minutes for an answer.
    """
    with _lock:
        return _client(service, role_arn)


@cache
def _client(service: str, role_arn: str | None) -> Any:
    own = environment(role_arn)
    return _session().client(
        service,
        endpoint_url=_Server.url,
        config=Config(
            retries={"total_max_attempts": 1},
            read_timeout=900,
            max_pool_connections=32,
            signature_version="s3v4" if service == "s3" else None,  # for presigned URLs
        ),
        aws_access_key_id=own["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=own["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=own.get("AWS_SESSION_TOKEN"),
    )


@cache
def _session() -> Any:
    """Return the one session of all clients: each session reads botocore's data files anew."""
    return boto3.session.Session(region_name=REGION)


def environment(role_arn: str | None = None) -> dict[str, str]:
    """Return the AWS_* variables by which any client of AWS reaches this one, as admin or as that role."""
    server = {"AWS_ENDPOINT_URL": _Server.url, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
    with _lock:
        return {**server, **(ADMIN if role_arn is None else _credentials(role_arn))}


@cache
def _credentials(role_arn: str) -> dict[str, str]:
    request = {"RoleArn": role_arn, "RoleSessionName": "rehearsal", "DurationSeconds": _SESSION_S}
    found = client("sts").assume_role(**request)["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
        "AWS_SESSION_TOKEN": found["SessionToken"],
    }


def send_to_queue(arn: str, body: str, group: str | None = None) -> None:
    """Send a message to an SQS queue as a service does; `group` is its message group, which FIFO queues ask for."""
    url = client("sqs").get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
    client("sqs").send_message(QueueUrl=url, MessageBody=body, **({"MessageGroupId": group} if group else {}))
