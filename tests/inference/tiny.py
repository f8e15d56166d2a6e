"""A model small enough to be made here, and the real server around it."""

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests import contracts

_REPOSITORY = Path(__file__).parents[2]

FACTS: dict[str, Any] = {
    "format": 1,
    "architecture": "mean colour",
    "classes": ["red", "green", "blue"],
    "preprocessing": {"resize": 40, "crop": 32, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.2] * 3},
}


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        return ask(self.port, method, path, body, headers)

    def classify(self, body: Any, **headers: str) -> Answer:
        """The answer to POST /invocations, which the contract's schema describes if it is JSON."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        answer = self.ask("POST", "/invocations", body, named)
        if answer.headers["content-type"] == "application/json":
            contracts.validate("server-answer", answer.json)
        return answer

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, list[dict[str, Any]]]:
        """The exit status, and the log as objects."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        assert err == ""
        return self.process.returncode, [json.loads(line) for line in out.splitlines()]


def ask(port: int, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def answer_on(connection: socket.socket) -> Answer:
    """The next answer on a connection that was written to by hand."""
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return Answer(response.status, dict(response.getheaders()), response.read())


def upload(port: int, body: bytes, part: int) -> socket.socket:
    """A connection on which the head of a request and `part` bytes of its body have been sent."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[:part])
    return connection


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def write_model(folder: Path, weights: Any = None, classes: int = 3, known: dict[str, Any] | None = None) -> Path:
    """An artifact whose logits are the means of the three colours, times `weights` [3, classes].

    `known` is the record of a reference of the three colours; the means are then the embedding too.
    """
    # OpenVINO is loaded after the package that silences it.
    from inference.on_openvino import openvino  # type: ignore[attr-defined]

    ops = openvino.opset13
    folder.mkdir(parents=True, exist_ok=True)
    image = ops.parameter([-1, 3, 32, 32], np.float32)
    image.output(0).get_tensor().set_names({"image"})
    table = np.eye(3, classes, dtype=np.float32) if weights is None else np.asarray(weights, np.float32)
    means = ops.reduce_mean(image, [2, 3], False)
    outputs = [ops.matmul(means, table, False, False), *([means] if known else [])]
    openvino.save_model(openvino.Model(outputs, [image]), folder / "model.xml", compress_to_fp16=False)
    (folder / "model.json").write_text(json.dumps(FACTS | ({"known": known} if known else {})))
    if known:
        np.save(folder / known["file"], (np.eye(3) * 5 - 2.5).astype(np.float16) / np.float16(np.sqrt(18.75)))
    return folder


def picture(
    kind: str = "JPEG", colour: str = "red", size: tuple[int, int] = (60, 50), mode: str = "RGB", **how: Any
) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, kind, **how)
    return file.getvalue()


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "OPT_ML": str(folder), "BIND_ADDRESS": "127.0.0.1", "SAGEMAKER_BIND_TO_PORT": "0", **more}


def start(folder: Path, *before: str, **more: str) -> subprocess.Popen[str]:
    """`before`: a command that runs the server's."""
    command = [*before, sys.executable, "-m", "inference", "serve"]
    pipe = subprocess.PIPE
    env = environment(folder, **more)
    return subprocess.Popen(command, env=env, cwd=_REPOSITORY, stdout=pipe, stderr=pipe, text=True)


def listening(process: subprocess.Popen[str], seconds: float = 60) -> int:
    """The port of a server that has just been started, from its log; one that does not listen is ended."""
    assert process.stdout is not None
    patience = threading.Timer(seconds, process.kill)
    patience.start()
    try:
        for line in process.stdout:
            if (facts := json.loads(line))["event"] == "listening":
                return int(facts["port"])
    finally:
        patience.cancel()
    process.kill()
    raise AssertionError(f"the server did not listen: {process.communicate()[1]}")
