"""How one request is sent: over HTTP to a server of this machine, or through SageMaker to a deployed endpoint."""

import http.client
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

Sender = Callable[[bytes], str]  # what went wrong; empty for a 200

_TYPE = "application/octet-stream"


def over_http(url: str, seconds: float) -> Sender:
    """A sender that keeps one connection a thread; an answer may take `seconds`."""
    place, mine = urlsplit(url), threading.local()

    def send(body: bytes) -> str:
        if not hasattr(mine, "connection"):
            mine.connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=seconds)
        try:
            mine.connection.request("POST", place.path, body, {"Content-Type": _TYPE})
            answer = mine.connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            mine.connection.close()
            return f"{type(error).__name__}: {error}"
        return "" if answer.status == 200 else f"{answer.status}: {content[:200].decode('utf-8', 'replace')}"

    return send


def over_sagemaker(endpoint: str, seconds: float, connections: int) -> Sender:
    """A sender that retries nothing: a request that is refused is one that was lost."""
    import boto3  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    config = Config(
        retries={"total_max_attempts": 1}, max_pool_connections=connections, connect_timeout=5, read_timeout=seconds
    )
    runtime: Any = boto3.client("sagemaker-runtime", config=config)

    def send(body: bytes) -> str:
        try:
            runtime.invoke_endpoint(EndpointName=endpoint, ContentType=_TYPE, Body=body)["Body"].read()
        except (BotoCoreError, ClientError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    return send
