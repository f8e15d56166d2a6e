"""How one request is sent: over HTTP to a server of this machine, or through SageMaker to a deployed endpoint."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Sender = Callable[[bytes], str]  # what went wrong; empty for a 200

_TYPE = "application/octet-stream"


@contextmanager
def over_http(url: str, seconds: float, connections: int) -> Iterator[Sender]:
    """Yield a sender that keeps its connections; an answer may take `seconds`."""
    import urllib3

    def send(body: bytes) -> str:
        try:
            answer = pool.request("POST", url, body=body, headers={"Content-Type": _TYPE})
        except urllib3.exceptions.HTTPError as error:
            return f"{type(error).__name__}: {error}"
        return "" if answer.status == 200 else f"{answer.status}: {answer.data[:200].decode('utf-8', 'replace')}"

    with urllib3.PoolManager(maxsize=connections, retries=False, timeout=seconds) as pool:
        yield send


@contextmanager
def over_sagemaker(endpoint: str, seconds: float, connections: int) -> Iterator[Sender]:
    """Yield a sender that retries nothing: a request that is refused is one that was lost."""
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

    yield send
    runtime.close()
