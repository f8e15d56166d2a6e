"""A running program: its output line by line, its end by SIGTERM or SIGKILL, and never an orphan."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_KEEPER = Path(__file__).with_name("supervisor.py")
_LINE = 64 * 1024  # bytes; a longer line arrives in pieces
_TAIL = 60  # lines


class Process:
    """One program under the keeper (see supervisor.py). `on_line` is called from a thread of this object's own."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: Path,
        on_line: Callable[[str], object] = lambda line: None,
        isolation: Mapping[str, Any] | None = None,
        output: int | None = None,
    ) -> None:
        """`output`: a file descriptor that takes standard output and error, in place of `on_line` and `log`."""
        orders: dict[str, Any] = {"command": [*command], "environment": {**environment}, "cwd": str(cwd)}
        orders |= {"namespaces": 0, "join": [], "image": "", "binds": [], "afterwards": [], **(isolation or {})}
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._on_line = on_line
        self._orders = threading.Lock()
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_KEEPER)],
            # Not this process's environment: the program could read it from the keeper.
            env={"PATH": os.environ.get("PATH", os.defpath)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if output is None else output,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._order(json.dumps(orders).encode() + b"\n")

    @property
    def pid(self) -> int:
        """Of the keeper; its namespaces are the ones that others may join."""
        return self._keeper.pid

    @property
    def log(self) -> str:
        """The last lines of standard output and error."""
        return "\n".join(self._tail.copy())

    def poll(self) -> int | None:
        """The exit code (128 + n for signal n), or None while it runs."""
        return self._keeper.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code once all output has been passed on, or None after `timeout` seconds."""
        try:
            code = self._keeper.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._close()
        return code

    def terminate(self) -> None:
        """SIGTERM for the program; nothing when it has ended."""
        self._order(b"T")

    def kill(self) -> None:
        """SIGKILL for the program and all it started; returns when they are gone."""
        with self._orders, contextlib.suppress(OSError):
            assert self._keeper.stdin
            self._keeper.stdin.close()
        self._keeper.wait()
        self._close()

    def stop(self, grace: float) -> int:
        """SIGTERM, then SIGKILL after `grace` seconds; returns the exit code."""
        self.terminate()
        code = self.wait(grace)
        if code is None:
            self.kill()
            code = self._keeper.wait()
        return code

    def _order(self, message: bytes) -> None:
        with self._orders, contextlib.suppress(OSError, ValueError):  # the keeper has ended, or was told to
            assert self._keeper.stdin
            self._keeper.stdin.write(message)

    def _close(self) -> None:
        # A descendant that left the group may hold the pipe open: its output is not worth waiting for.
        self._reader.join(2.0)
        with self._orders, contextlib.suppress(OSError):
            assert self._keeper.stdin
            self._keeper.stdin.close()

    def _read(self) -> None:
        output = self._keeper.stdout
        if output is None:
            return
        with output, open(output.fileno(), "rb", buffering=_LINE, closefd=False) as stream:
            while line := stream.readline(_LINE):
                text = line.decode("utf-8", errors="replace").rstrip("\r\n")
                self._tail.append(text)
                self._on_line(text)
