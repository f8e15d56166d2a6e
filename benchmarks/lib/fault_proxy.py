"""A proxy on loopback between the function and SageMaker's runtime that breaks a share of the calls."""

import http.client
import json
import random
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, cast

_OWN = ("connection", "content-length", "date", "server", "transfer-encoding")  # headers of one connection
_SLOW = (1.0, 4.0)  # seconds: from, to
_SILENT = 35.0  # seconds, more than the function has
_THROTTLED = json.dumps({"message": "Rate exceeded"}).encode()
_RESET_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST and drops what was not read


@dataclass(frozen=True)
class Mix:
    """The share of calls (0 to 1) that are throttled, reset, answered late, or never answered."""

    throttled: float = 0.05
    reset: float = 0.01
    slow: float = 0.02
    silent: float = 0.0005

    def shares(self) -> dict[str, float]:
        """The connection breaks before the service has the request, after it answered, or within its answer."""
        third = self.reset / 3
        resets = {"reset_before": third, "reset_after": third, "reset_within": third}
        return {"throttled": self.throttled, **resets, "slow": self.slow, "silent": self.silent}


class FaultProxy:
    """Use as a context manager. `url` takes the place of the runtime's; `counts` says what happened to the calls."""

    def __init__(self, target: tuple[str, int], mix: Mix, seed: int = 0) -> None:
        self.target, self._shares, self._chance = target, mix.shares(), random.Random(seed)
        self._lock, self.ended = threading.Lock(), threading.Event()
        self.counts: Counter[str] = Counter()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def draw(self) -> tuple[str, float]:
        """Return a fault or "passed", and how many seconds an answer is held back."""
        with self._lock:
            names, shares = [*self._shares], [*self._shares.values()]
            fault = self._chance.choices([*names, "passed"], [*shares, 1 - sum(shares)])[0]
            self.counts[fault] += 1
            return fault, self._chance.uniform(*_SLOW) if fault == "slow" else 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self.close()

    def close(self) -> None:
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    proxy: FaultProxy

    def shutdown_request(self, request: Any) -> None:
        """Without the end of stream that the library would send before a reset."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that has gone away: nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_POST(self) -> None:
        proxy = cast(_Server, self.server).proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault, seconds = proxy.draw()
        proxy.ended.wait(_SILENT if fault == "silent" else seconds)
        if fault == "throttled":
            self._send(400, {"Content-Type": "application/json", "x-amzn-ErrorType": "ThrottlingException"}, _THROTTLED)
        elif fault in ("silent", "reset_before"):
            self._reset()
        else:
            self._pass_on(proxy.target, body, fault)

    def _pass_on(self, target: tuple[str, int], body: bytes, fault: str) -> None:
        connection = http.client.HTTPConnection(*target, timeout=90)
        connection.request("POST", self.path, body, dict(self.headers.items()))
        response = connection.getresponse()
        headers = {name: value for name, value in response.getheaders() if name.lower() not in _OWN}
        answer = response.read()
        connection.close()
        if fault == "reset_after":
            self._reset()
        else:
            self._send(response.status, headers, answer, within=fault == "reset_within")

    def _send(self, status: int, headers: dict[str, str], body: bytes, *, within: bool = False) -> None:
        """`within`: the connection breaks after half the body."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if within else body)
        self.wfile.flush()
        if within:
            self._reset()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_ONCE)
        self.close_connection = True
