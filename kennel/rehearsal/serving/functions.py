"""Lambda's side of Invoke: which sandbox takes a call, and when there is a new one."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping

from kennel.rehearsal.interfaces import FunctionAnswer, FunctionCall, TooManyRequests
from kennel.rehearsal.serving.runtime_api import PAYLOAD
from kennel.rehearsal.serving.sandbox import Sandbox


class PayloadTooLarge(ValueError):
    """Lambda's RequestEntityTooLargeException (413)."""


class Functions:
    """Runs functions. `environment(role_arn)` gives the AWS_* variables with which a function calls as its role.

    A sandbox is kept warm for the next call of the same version with the same settings. At most `concurrency` calls of
    one function run at a time. Callable from any thread; `close` ends every sandbox.
    """

    def __init__(self, *, environment: Callable[[str], Mapping[str, str]], concurrency: int = 10) -> None:
        self._environment, self._concurrency = environment, concurrency
        self._lock = threading.Lock()
        self._idle: dict[Hashable, list[Sandbox]] = defaultdict(list)
        self._busy: dict[Hashable, list[Sandbox | None]] = defaultdict(list)  # None: on its way
        self._closed = False

    def invoke(self, call: FunctionCall) -> FunctionAnswer:
        """Raises PayloadTooLarge and TooManyRequests; all else that goes wrong is an answer with an `error`."""
        if len(call.payload) > PAYLOAD:
            raise PayloadTooLarge(f"Request must be smaller than {PAYLOAD} bytes for the InvokeFunction operation.")
        key = _key(call)
        sandbox = self._take(key, call)
        try:
            return sandbox.invoke(call)
        except BaseException:
            sandbox.alive = False
            raise
        finally:
            self._give_back(key, sandbox)

    def close(self) -> None:
        """End every sandbox, those at work too."""
        with self._lock:
            self._closed = True
            idle = [box for boxes in self._idle.values() for box in boxes]
            busy = [box for boxes in self._busy.values() for box in boxes if box]
            self._idle.clear()
        for sandbox in busy:
            sandbox.kill()  # its caller gets an error, and closes it
        for sandbox in idle:
            sandbox.close()

    def _take(self, key: Hashable, call: FunctionCall) -> Sandbox:
        with self._lock:
            if self._closed:
                raise RuntimeError("The functions have been shut down.")
            if self._idle[key]:
                sandbox = self._idle[key].pop()
                self._busy[key].append(sandbox)
                return sandbox
            if len(self._busy[key]) >= self._concurrency:
                raise TooManyRequests(f"Rate Exceeded: {self._concurrency} calls of {call.arn} are running.")
            self._busy[key].append(None)
        try:
            sandbox = Sandbox(call, self._environment(call.role_arn))
        except BaseException:
            self._replace(key, None)
            raise
        self._replace(key, sandbox)
        return sandbox

    def _replace(self, key: Hashable, sandbox: Sandbox | None) -> None:
        with self._lock:
            self._busy[key].remove(None)
            if sandbox:
                self._busy[key].append(sandbox)
        if sandbox and self._closed:  # while it was on its way
            sandbox.kill()

    def _give_back(self, key: Hashable, sandbox: Sandbox) -> None:
        with self._lock:
            self._busy[key].remove(sandbox)
            keep = sandbox.alive and not self._closed
            if keep:
                self._idle[key].append(sandbox)
        if not keep:
            sandbox.close()


def _key(call: FunctionCall) -> Hashable:
    """What a warm sandbox must have in common with a call. An alias and its version share sandboxes."""
    function = ":".join(call.arn.split(":")[:7])
    variables = tuple(sorted(call.environment.items()))
    return function, call.version, call.handler, str(call.code), call.role_arn, call.memory_mb, variables
