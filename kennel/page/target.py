"""Whom the page asks: one stage's function, through Lambda's API."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kennel.aws import plainly
from kennel.errors import KennelError


@dataclass(frozen=True)
class Target:
    """`client`: boto3's for Lambda; `function`: the alias's ARN.

    `api_url`: the stage's HTTP API, empty where nobody plays it (a rehearsal). `environment`: the AWS_* variables that
    another terminal must set to reach the same AWS; empty where it has them already, so that no secret is shown.
    """

    stage: str
    function: str
    client: Any
    api_url: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def region(self) -> str:
        return str(self.client.meta.region_name)

    @property
    def endpoint_url(self) -> str:
        """Of Lambda's API."""
        return str(self.client.meta.endpoint_url)

    def ask(self, event: Mapping[str, str]) -> tuple[bytes, float]:
        """Return the function's answer as it came, its own errors included, and the milliseconds until it was here.

        Raises KennelError where the function broke or could not be called.
        """
        payload = json.dumps(event).encode()
        started = time.perf_counter()
        with plainly():
            answer = self.client.invoke(FunctionName=self.function, Payload=payload)
        raw: bytes = answer["Payload"].read()
        if answer.get("FunctionError"):
            raise KennelError(f"The function broke; its log says more. It said: {raw[:300].decode(errors='replace')}")
        return raw, 1000 * (time.perf_counter() - started)
