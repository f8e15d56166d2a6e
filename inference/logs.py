"""One JSON object a line on standard output; a request's body is never in it."""

import json
import logging
import os
import queue
import threading
from datetime import UTC, datetime

_OUTPUT = 1  # written to directly: a buffer's lock, held by a thread that waits, would break the exit
_ROOM = 1000  # lines that wait to be taken
_LAST_SECONDS = 2.0  # for those that are left at the end


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


class _Apart(logging.Handler):
    """Writes in a thread of its own: whoever takes the log may be slow, full or gone, and it costs no answer.

    Lines for which there is no room are dropped; how many is said when lines are taken again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_JsonLine())
        self._lines: queue.Queue[str | None] = queue.Queue(_ROOM)
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
            self._lines.put(None, timeout=_LAST_SECONDS)
            self._thread.join(_LAST_SECONDS)
        except queue.Full:
            pass  # and nobody will take them
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
            data = data[os.write(_OUTPUT, data) :]
    except OSError:
        pass  # a full disk or a closed pipe must not bring a server down


def start() -> None:
    """Sends every logger of this process, uvicorn's too, to standard output."""
    logging.basicConfig(level=logging.INFO, handlers=[_Apart()], force=True)


def event(name: str, **facts: object) -> None:
    logging.getLogger("inference").info(name, extra={"facts": facts})


def failure(name: str) -> None:
    """With the exception that is being handled."""
    logging.getLogger("inference").exception(name)
