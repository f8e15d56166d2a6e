"""Starts a server, waits for its first right answer, and ends it with everything that it started."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lib.answers import best

_START = 120.0  # seconds in which a server must answer
_POLL = 0.005  # seconds between askings
_LEAVE = 30.0  # seconds after SIGTERM


class NotServed(Exception):
    """A server cannot be had on this machine; the text says why."""


@dataclass(frozen=True)
class Server:
    """`{port}` in the command and the environment's values becomes its port. `outputs`: probabilities in an answer."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    path: str
    outputs: int


@dataclass(frozen=True)
class Running:
    """`first_answer`: seconds from the start of the process to its first right answer."""

    pid: int
    port: int
    first_answer: float
    log: Path

    def said(self, name: str) -> str | None:
        """The last value of `name` in the log's JSON lines."""
        found = None
        for line in self.log.read_text("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError):
                facts = json.loads(line)
                found = facts.get(name, found) if isinstance(facts, dict) else found
        return found


@contextmanager
def running(server: Server, folder: Path, picture: bytes, classes: int) -> Iterator[Running]:
    """Raises NotServed with the end of its log when no right answer comes."""
    folder.mkdir(parents=True, exist_ok=True)
    port, log = _free_port(), folder / "log.txt"
    environment = {name: value.replace("{port}", str(port)) for name, value in server.environment.items()}
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with log.open("wb") as output:
        begun = time.monotonic()
        process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in server.command],
            env={**keep, "TMPDIR": str(folder), **environment},
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not _answers(server, port, picture, classes):
            if process.poll() is not None or time.monotonic() - begun > _START:
                raise NotServed(_end_of(log) or "it did not answer")
            time.sleep(_POLL)
        yield Running(process.pid, port, time.monotonic() - begun, log)
    finally:
        _stop(process)


def _answers(server: Server, port: int, picture: bytes, classes: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START)
    try:
        connection.request("POST", server.path, picture, {"Content-Type": "application/octet-stream"})
        response = connection.getresponse()
        body = response.read()
        return response.status == 200 and bool(best(body, server.outputs, classes))
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False
    finally:
        connection.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The whole session, which is ours alone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_LEAVE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end_of(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return " | ".join(lines[-2:])[-300:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
