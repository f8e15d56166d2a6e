"""Where SageMaker's runtime is called, by the variables that boto3 reads."""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

import botocore  # type: ignore[import-untyped]


class Service(NamedTuple):
    """`url` without a slash at its end; `region` is the one to sign for."""

    url: str
    region: str

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def is_secure(self) -> bool:
        return self.parts.scheme == "https"


def of_environment() -> Service:
    """Raises KeyError where there is no region; Lambda always names it."""
    region = os.environ.get("AWS_REGION") or os.environ["AWS_DEFAULT_REGION"]
    url = configured() or f"https://runtime.sagemaker.{region}.{_suffix(region)}"
    return Service(url.rstrip("/"), region)


def configured() -> str:
    """The URL that somebody has set in place of AWS's own, or nothing."""
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return ""
    return os.environ.get("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME") or os.environ.get("AWS_ENDPOINT_URL", "")


def _suffix(region: str) -> str:
    """Such as amazonaws.com.cn, from botocore's own list of partitions (7 kB), the one that its rules read."""
    file = Path(botocore.__file__).with_name("data") / "partitions.json"
    partitions: list[dict[str, Any]] = json.loads(file.read_bytes())["partitions"]
    fits = (partition for partition in partitions if re.match(partition["regionRegex"], region))
    return str(next(fits, partitions[0])["outputs"]["dnsSuffix"])
