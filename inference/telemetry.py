"""What the server reports of itself: JSON log lines, timings of an answer, CloudWatch metrics, an access log.

A request's body is never in it.
"""

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STDOUT = 1  # written to directly: a buffer's lock, held by a waiting thread, would block the exit
_QUEUED = 1000  # lines that wait to be written
_CLOSE_SECONDS = 2.0  # for the lines that are left at the end


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _ThreadedHandler(logging.Handler):
    """Writes in a thread of its own, so that a slow, full or closed standard output delays no answer.

    Lines beyond `_QUEUED` are dropped; `log_lines_lost` says how many once lines are read again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_JsonLine())
        self._lines: queue.Queue[str | None] = queue.Queue(_QUEUED)
        self._lost = 0
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Called by `logging` at exit."""
        try:
            self._lines.put(None, timeout=_CLOSE_SECONDS)
            self._thread.join(_CLOSE_SECONDS)
        except queue.Full:
            pass  # nobody reads them any more
        super().close()

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            _write(line)
            if self._lost:
                lost, self._lost = self._lost, 0
                about = {"levelname": "WARNING", "msg": "log_lines_lost", "facts": {"lines": lost}}
                _write(self.format(logging.makeLogRecord(about)))


def _write(line: str) -> None:
    data = f"{line}\n".encode()
    try:
        while data:
            data = data[os.write(_STDOUT, data) :]
    except OSError:
        pass  # a full disk or a closed pipe must not end the server


def start() -> None:
    """Send every logger of this process, uvicorn's too, to standard output."""
    logging.basicConfig(level=logging.INFO, handlers=[_ThreadedHandler()], force=True)


def event(name: str, **facts: object) -> None:
    """Write one log line; `facts` are its fields."""
    logging.getLogger("inference").info(name, extra={"facts": facts})


def failure(name: str) -> None:
    """Write a log line with the exception that is being handled."""
    logging.getLogger("inference").exception(name)


@dataclass
class Timings:
    """Milliseconds of one answer; of several pictures the longest wait and the sum of the work."""

    queue_ms: float = 0.0
    decode_ms: float = 0.0
    model_ms: float = 0.0

    def add(self, other: "Timings") -> None:
        """Add the times of another picture of the same request."""
        self.queue_ms = max(self.queue_ms, other.queue_ms)
        self.decode_ms += other.decode_ms
        self.model_ms += other.model_ms

    def rounded(self) -> dict[str, float]:
        """Return the times by name, to a microsecond."""
        return {name: round(value, 3) for name, value in asdict(self).items()}

    def header(self) -> str:
        """Return the Server-Timing header (https://www.w3.org/TR/server-timing/)."""
        return ", ".join(f"{name.removesuffix('_ms')};dur={value:g}" for name, value in self.rounded().items())


_EVERY = 60.0  # seconds
_MOST = 100  # values of one metric that CloudWatch takes in a line
_TIMES = {"QueueMs": "queue_ms", "DecodeMs": "decode_ms", "ModelMs": "model_ms"}
_COUNTS = ("Requests", "ClientErrors", "ServerErrors", "Busy")


class Metrics:
    """Counts and times since the last line, in CloudWatch's embedded metric format; for any thread."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint, self._lock = endpoint, threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._times: dict[str, list[float]] = {name: [] for name in _TIMES}

    def count(self, status: int) -> None:
        """Count one request to /invocations by the status of its answer."""
        with self._lock:
            self._counts["Requests"] += 1
            if status >= 400:
                self._counts["Busy" if status == 429 else "ServerErrors" if status >= 500 else "ClientErrors"] += 1

    def note(self, timings: Timings) -> None:
        """Note the times of one answered request."""
        with self._lock:
            for name, attribute in _TIMES.items():
                self._times[name].append(getattr(timings, attribute))

    def write(self) -> None:
        """Write what came since the last time as one line."""
        with self._lock:
            counts, times = self._counts, self._times
            self._clear()
        values = {name: sample(found) for name, found in times.items() if found}
        metrics = [{"Name": name, "Unit": "Count"} for name in counts]
        metrics += [{"Name": name, "Unit": "Milliseconds"} for name in values]
        dimension = {"Endpoint": self._endpoint} if self._endpoint else {}
        directive = {"Namespace": "Kennel/Server", "Dimensions": [list(dimension)], "Metrics": metrics}
        about = {"Timestamp": int(1000 * time.time()), "CloudWatchMetrics": [directive]}
        event("metrics", _aws=about, **dimension, **counts, **values)

    def start(self) -> Callable[[], None]:
        """Write once a minute until the returned function is called, which writes the last line."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_EVERY):
                self.write()

        thread = threading.Thread(target=watch, name="metrics", daemon=True)
        thread.start()

        def stop() -> None:
            ended.set()
            thread.join()
            self.write()

        return stop


def sample(values: list[float]) -> list[float]:
    """Return at most `_MOST` of the values, evenly spaced in order of size, the least and the greatest among them."""
    ordered = sorted(values)
    if len(ordered) > _MOST:
        ordered = [ordered[place * (len(ordered) - 1) // (_MOST - 1)] for place in range(_MOST)]
    return [round(value, 3) for value in ordered]


_MARK = (b"x-amzn-sagemaker-custom-attributes", b"kennel-probe")


def is_probe(scope: Scope) -> bool:
    """Return whether a release sent this request, and no caller: it is in the log and in no metric."""
    return _MARK in scope["headers"]


class AccessLog:
    """ASGI middleware: one log line for each request, and its count. Successful health checks are left out."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start, status, received = time.perf_counter(), 500, 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, counted, watched)
        finally:
            if scope["path"] == "/invocations" and not is_probe(scope):
                self._metrics.count(status)
            if scope["path"] != "/ping" or status != 200:
                milliseconds = round(1000 * (time.perf_counter() - start), 1)
                path, method = scope["path"][:200], scope["method"]
                event("request", method=method, path=path, status=status, bytes=received, ms=milliseconds)
