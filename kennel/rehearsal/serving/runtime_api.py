"""Lambda's Runtime API (2018-06-01) for one sandbox: hands invocations to the runtime client, takes its answers.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import json
import queue
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, cast

PAYLOAD = 6 * 1024 * 1024  # bytes, of a request and of an answer


@dataclass
class Invocation:
    """One event on its way into the sandbox. `deadline` in seconds since 1970."""

    id: str
    payload: bytes
    deadline: float
    arn: str


@dataclass(frozen=True)
class Posted:
    """What the runtime sent: a response, an error of the function, or an error of its initialization."""

    kind: Literal["response", "error", "init", "oversized"]
    body: bytes
    id: str = ""


@dataclass
class RuntimeApi:
    """A server on loopback at `address`. Put into `invocations`, get from `posted`; `ready`: it asked for work."""

    invocations: queue.Queue[Invocation | None] = field(default_factory=queue.Queue)
    posted: queue.Queue[Posted] = field(default_factory=queue.Queue)
    ready: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.invocations.put(None)  # frees the thread that waits to hand out work
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    api: RuntimeApi

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sandbox that is killed breaks its connection: nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def api(self) -> RuntimeApi:
        return cast(_Server, self.server).api

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        if not self.path.endswith("/runtime/invocation/next"):
            return self._answer(404)
        self.api.ready.set()
        invocation = self.api.invocations.get()
        if invocation is None:
            self.close_connection = True
            return None
        trace = f"Root=1-{int(invocation.deadline):08x}-{invocation.id.replace('-', '')[:24]};Sampled=0"
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.id,
            "Lambda-Runtime-Deadline-Ms": str(int(invocation.deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": invocation.arn,
            "Lambda-Runtime-Trace-Id": trace,
        }
        return self._answer(200, invocation.payload, headers)

    def do_POST(self) -> None:
        body = self._body()
        match self.path.split("/")[3:]:
            case ["init", "error"]:
                self.api.posted.put(Posted("init", body))
            case ["invocation", name, "response"] if len(body) > PAYLOAD:
                self.api.posted.put(Posted("oversized", b"", name))
                return self._answer(413, b'{"errorType":"RequestEntityTooLarge"}')
            case ["invocation", name, "response"]:
                self.api.posted.put(Posted("response", body, name))
            case ["invocation", name, "error"]:
                self.api.posted.put(Posted("error", body, name))
            case _:
                return self._answer(404)
        return self._answer(202, json.dumps({"status": "OK"}).encode())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
