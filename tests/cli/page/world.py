"""A page in front of an embedded AWS whose function answers as told."""

import base64
import io
import json
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from kennel.page.server import served
from kennel.page.snippets import Target
from kennel.rehearsal.interfaces import FunctionAnswer, FunctionCall
from tests.rehearsal.cloud.world import World

GOOD: dict[str, Any] = {
    "probabilities": [0.9, 0.07, 0.03],
    "predictions": [{"label": name, "probability": p} for name, p in (("Beagle", 0.9), ("Pug", 0.07), ("Boxer", 0.03))],
    "label": "Beagle",
    "threshold": 0.41,
    "model": "arn:aws:sagemaker:us-east-1:123456789012:model-package/kennel-dev/1",
    "timings": {"endpoint_ms": 9.0, "queue_ms": 0.5, "decode_ms": 3.0, "model_ms": 5.0},
    "request_id": "r-1",
}


class PageWorld:
    """The function says `answer` after `delay` seconds; with an `error` (Lambda's FunctionError) it broke."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.forget()
        world.function = self._function
        self.target = Target(
            "Dev", _function(world), world.cloud.client("lambda"), environment=world.cloud.environment()
        )
        self.url = ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def path(self) -> str:
        """Below which everything of the page lies."""
        return urlsplit(self.url).path.rstrip("/")

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The events that reached the function."""
        return [json.loads(call.payload) for call in self.world.calls]

    @property
    def pictures(self) -> list[bytes]:
        return [base64.b64decode(event["image"]) for event in self.asked]

    def forget(self) -> None:
        self.world.calls.clear()
        self.answer: Any = GOOD
        self.error: str | None = None
        self.delay = 0.0

    def post(self, body: bytes | dict[str, str], kind: str = "image/png", **headers: str) -> requests.Response:
        """As the page's own script does, with other headers where given."""
        if isinstance(body, dict):
            body, kind = json.dumps(body).encode(), "application/json"
        more = {"Content-Type": kind, "Origin": self.origin} | headers
        return requests.post(f"{self.url}classify", data=body, headers=more, timeout=60)

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers=headers, timeout=60)

    def _function(self, call: FunctionCall) -> FunctionAnswer:
        time.sleep(self.delay)
        return FunctionAnswer(json.dumps(self.answer).encode(), self.error, "")


@contextmanager
def page_world(work: Path) -> Iterator[PageWorld]:
    world = World(work)
    with world.cloud:
        made = PageWorld(world)
        with served(made.target) as made.url:
            yield made


def _function(world: World) -> str:
    """Make the function with its alias, and return the alias's ARN."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("h.py", "")
    client = world.cloud.client("lambda")
    client.create_function(
        FunctionName="classify",
        Runtime="python3.13",
        Role=world.role("classify"),
        Handler="h.h",
        Code={"ZipFile": packed.getvalue()},
        Publish=True,
    )
    return str(client.create_alias(FunctionName="classify", Name="live", FunctionVersion="1")["AliasArn"])
