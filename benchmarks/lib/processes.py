"""Programs in processes of their own: modules of the benchmarks, servers that are ended, and what they use."""

import base64
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import psutil  # type: ignore[import-untyped]

from kennel.rehearsal.containers.local import free_port

ROOT = Path(__file__).resolve().parents[2]
_START = 120.0  # seconds in which a server must answer
_DIRECT = build_opener(ProxyHandler({}))  # whatever proxy the environment names
_POLL = 0.005  # seconds between two tries to get an answer
_STOP = 30.0  # seconds after SIGTERM
_SAMPLE = 0.5  # seconds; to add up a large process's pages takes it milliseconds in which it waits


class NotServed(Exception):
    """A server cannot be had on this machine; the text says why."""


@dataclass(frozen=True)
class Server:
    """How a server is started: `{port}` in the command and in the environment's values becomes its port.

    Pictures are posted to `path` as they are, or, with `json_field`, as base64 in that field of a JSON object.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    path: str
    json_field: str = ""


@dataclass(frozen=True)
class Running:
    """`first_answer`: seconds from the start of the process to its first right answer."""

    pid: int
    port: int
    first_answer: float
    log: Path

    def logged(self, name: str) -> str | None:
        """Return the last value of `name` in the log's JSON lines."""
        found = None
        for line in self.log.read_text("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError):
                fields = json.loads(line)
                found = fields.get(name, found) if isinstance(fields, dict) else found
        return found


def body_of(picture: bytes, json_field: str) -> bytes:
    """Return the request's body for a picture, as `Server.json_field` has it."""
    return json.dumps({json_field: base64.b64encode(picture).decode()}).encode() if json_field else picture


def start(command: Sequence[str], **variables: str) -> subprocess.Popen[str]:
    """Start a command in the repository's root, with `variables` in its environment; its errors go to its output."""
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output_of(child: subprocess.Popen[str]) -> str:
    """Return all that it printed, once it has ended; raise RuntimeError with that where it failed."""
    try:
        output = child.communicate()[0]
    finally:
        child.kill()
    if child.returncode:
        raise RuntimeError(f"{' '.join(map(str, child.args))[:200]} failed:\n{output}")  # type: ignore[arg-type]
    return output


def start_module(module: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start one of the benchmarks' modules, which prints one line of JSON for `result_of`."""
    return start([sys.executable, "-W", "ignore", "-m", f"benchmarks.lib.{module}", *arguments], **variables)


def result_of(child: subprocess.Popen[str]) -> Any:
    """Return the last line of JSON that it printed; raise RuntimeError where it failed."""
    lines = [line for line in output_of(child).splitlines() if line.startswith("{")]
    return json.loads(lines[-1])


@contextmanager
def running(server: Server, folder: Path, body: bytes, check: Callable[[bytes], object]) -> Iterator[Running]:
    """Start `server` and wait until it answers `body` with something at which `check` does not raise ValueError.

    Its log and its files lie in `folder`. At the end everything that it started is ended. Raise NotServed with the end
    of its log when no right answer comes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / "log.txt"
    environment = {name: value.replace("{port}", str(port)) for name, value in server.environment.items()}
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with log.open("wb") as output:
        begun = time.monotonic()
        process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in server.command],
            env={**inherited, "TMPDIR": str(folder), **environment},
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not _answers(port, server.path, body, check):
            if process.poll() is not None or time.monotonic() - begun > _START:
                raise NotServed(_end_of(log) or "it did not answer")
            time.sleep(_POLL)
        yield Running(process.pid, port, time.monotonic() - begun, log)
    finally:
        _stop(process)


def _answers(port: int, path: str, body: bytes, check: Callable[[bytes], object]) -> bool:
    kind = "application/json" if body.startswith(b"{") else "application/octet-stream"
    request = Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": kind})
    try:
        with _DIRECT.open(request, timeout=_START) as response:
            check(response.read())
        return True
    except (OSError, http.client.HTTPException, ValueError):  # another status than 200 is an OSError too
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the whole session, in which nothing else runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end_of(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return " | ".join(lines[-2:])[-300:]


def process_tree(pid: int) -> list[psutil.Process]:
    """Return the process and all its descendants; nothing where it has ended."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


def memory_mib(pid: int) -> float:
    """Return the proportional set sizes of the tree added up: pages that processes share count once."""
    return _total(pid, lambda process: float(process.memory_full_info().pss)) / 2**20


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of those in the tree that live."""
    return _total(pid, lambda process: float(sum(process.cpu_times()[:2])))


def _total(pid: int, figure: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for process in process_tree(pid):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            total += figure(process)
    return total


@contextmanager
def peak_memory(pid: int) -> Iterator[list[float]]:
    """Yield a list whose one number is the most memory of the tree so far, in MiB, while the block runs."""
    peak, done = [memory_mib(pid)], threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE):
            peak[0] = max(peak[0], memory_mib(pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
