"""The account of the one embedded AWS of this process, boto3 clients of it, and the environment of other clients.

Nothing of the operator's own AWS settings, proxies and certificate authorities has a say here: neither may they break
a rehearsal, nor may anything of it reach whom they name.
"""

import os
import re
import secrets
import string
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]

ACCOUNT, REGION = "123456789012", "us-east-1"
_SESSION_S = 43_200
_LETTERS = string.ascii_uppercase + string.digits

# No files of the operator's and no metadata service of the machine's, and loopback is reached without a proxy.
_OWN_SETTINGS = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "localhost,127.0.0.1",
    "no_proxy": "localhost,127.0.0.1",
}
_AWS = r"(AWS|BOTO|BOTOCORE|CDK_DEFAULT|MOTO)_\w+"
# What leads a client elsewhere, makes it trust others, or changes how it calls.
_SETTINGS = re.compile(
    rf"{_AWS}|\w+_PROXY|(REQUESTS|CURL)_CA_BUNDLE|SSL_CERT_(FILE|DIR)"
    r"|NODE_(EXTRA_CA_CERTS|OPTIONS|USE_ENV_PROXY|USE_SYSTEM_CA|TLS_REJECT_UNAUTHORIZED)",
    re.IGNORECASE,
)

_lock = threading.RLock()  # a boto3 session creates one client at a time
_admin: dict[str, str] = {}  # the variables by which the administrator, who may do everything, reaches the server


def use_server(url: str) -> None:
    """Create all clients from now on for the embedded AWS at `url`, and make its administrator a new key."""
    key = "AKIA" + "".join(secrets.choice(_LETTERS) for _ in range(16))
    _admin.update(AWS_ENDPOINT_URL=url, AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secrets.token_hex(20))
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
        endpoint_url=own["AWS_ENDPOINT_URL"],
        config=Config(
            retries={"total_max_attempts": 1},
            read_timeout=900,
            max_pool_connections=32,
            signature_version="s3v4" if service == "s3" else None,  # for presigned URLs
            proxies={},
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
    """Return the variables by which any client of AWS reaches this one, as admin or as that role.

    They suffice where no other variable of AWS is set.
    """
    variables = {**_admin, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, **_OWN_SETTINGS}
    if role_arn:
        with _lock:
            variables |= _credentials(role_arn)
    return variables


def forget_settings() -> None:
    """Take the operator's AWS settings out of this process; to be called before moto is imported, which reads them.

    Proxies and authorities stay, for the tools that build images: no client of the embedded AWS asks one.
    """
    for name in [name for name in os.environ if re.fullmatch(_AWS, name)]:
        del os.environ[name]
    os.environ |= {name: value for name, value in _OWN_SETTINGS.items() if name.startswith("AWS_")}


def without_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables but those of AWS, proxies and certificate authorities."""
    return {name: value for name, value in variables.items() if not _SETTINGS.fullmatch(name)}


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
