"""A page in front of an embedded AWS whose function answers as told."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from kennel.page import Target, served
from kennel.rehearsal.seams import FunctionAnswer, FunctionCall
from tests.rehearsal.cloud_world import World

TIMINGS = {"endpoint_ms": 9.0, "queue_ms": 0.5, "decode_ms": 3.0, "model_ms": 5.0}
GOOD: dict[str, Any] = {
    "probabilities": [0.9, 0.07, 0.03],
    "predictions": [{"label": name, "probability": p} for name, p in (("Beagle", 0.9), ("Pug", 0.07), ("Boxer", 0.03))],
    "label": "Beagle",
    "threshold": 0.41,
    "model": "arn:aws:sagemaker:us-east-1:123456789012:model-package/kennel-dev/1",
    "timings": TIMINGS,
    "request_id": "r-1",
}


class PageWorld:
    """`answer` is what the function says; `target` may be served with other settings."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.answer: dict[str, Any] = GOOD
        self.error: str | None = None
        world.function = self._function
        client = world.cloud.client("lambda")
        client.create_function(
            FunctionName="classify",
            Runtime="python3.13",
            Role=world.role("classify"),
            Handler="h.h",
            Code={"ZipFile": _zip()},
            Publish=True,
        )
        alias = client.create_alias(FunctionName="classify", Name="live", FunctionVersion="1")
        self.target = Target("Dev", alias["AliasArn"], client, environment=world.cloud.environment())
        self.url = ""

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The events that reached the function."""
        return [json.loads(call.payload) for call in self.world.calls]

    def forget(self) -> None:
        self.world.calls.clear()
        self.answer, self.error = GOOD, None

    def post(self, body: bytes, kind: str = "image/png", **headers: str) -> Any:
        """As the page's own script does, with other headers where given."""
        more = {"Content-Type": kind, "Origin": self.url.rstrip("/")} | headers
        return requests.post(f"{self.url}classify", data=body, headers=more, timeout=20)

    def get(self, path: str, **headers: str) -> Any:
        return requests.get(self.url + path, headers=headers, timeout=20)

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def _function(self, call: FunctionCall) -> FunctionAnswer:
        return FunctionAnswer(json.dumps(self.answer).encode(), self.error, "")


@contextmanager
def page_world(work: Path) -> Iterator[PageWorld]:
    world = World(work)
    with world.cloud:
        made = PageWorld(world)
        with served(made.target) as made.url:
            yield made


def _zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("h.py", "")
    return packed.getvalue()
