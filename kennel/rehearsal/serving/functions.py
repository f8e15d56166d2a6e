"""Lambda's Invoke: gives each call an execution environment, a warm one if there is one, and limits concurrency."""

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping

from kennel.rehearsal.interfaces import FunctionAnswer, FunctionCall, TooManyRequests
from kennel.rehearsal.serving.sandbox import Sandbox


class Functions:
    """Runs functions. `environment(role_arn)` returns the AWS_* variables with which a function calls as its role.

    A sandbox stays warm for the next call of the same version with the same settings. At most `concurrency` calls of
    one function run at a time. Methods may be called from any thread; `close` ends every sandbox.
    """

    def __init__(self, *, environment: Callable[[str], Mapping[str, str]], concurrency: int = 10) -> None:
        self._environment, self._concurrency = environment, concurrency
        self._lock = threading.Lock()
        self._idle: dict[Hashable, list[Sandbox]] = defaultdict(list)
        self._busy: dict[Hashable, list[Sandbox | None]] = defaultdict(list)  # None: it is being started
        self._closed = False

    def invoke(self, call: FunctionCall) -> FunctionAnswer:
        """Return the answer; raise TooManyRequests. Any other failure is an answer with `error`."""
        key = _key(call)
        sandbox = self._acquire(key, call)
        try:
            return sandbox.invoke(call)
        except BaseException:
            sandbox.alive = False
            raise
        finally:
            self._release(key, sandbox)

    def close(self) -> None:
        """End every sandbox, also the busy ones."""
        with self._lock:
            self._closed = True
            idle = [sandbox for sandboxes in self._idle.values() for sandbox in sandboxes]
            busy = [sandbox for sandboxes in self._busy.values() for sandbox in sandboxes if sandbox]
            self._idle.clear()
        for sandbox in busy:
            sandbox.kill()  # its caller gets an error, and closes it
        for sandbox in idle:
            sandbox.close()

    def _acquire(self, key: Hashable, call: FunctionCall) -> Sandbox:
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
            self._started(key, None)
            raise
        self._started(key, sandbox)
        return sandbox

    def _started(self, key: Hashable, sandbox: Sandbox | None) -> None:
        with self._lock:
            self._busy[key].remove(None)
            if sandbox:
                self._busy[key].append(sandbox)
        if sandbox and self._closed:  # while it was being started
            sandbox.kill()

    def _release(self, key: Hashable, sandbox: Sandbox) -> None:
        with self._lock:
            self._busy[key].remove(sandbox)
            reusable = sandbox.alive and not self._closed
            if reusable:
                self._idle[key].append(sandbox)
        if not reusable:
            sandbox.close()


def _key(call: FunctionCall) -> Hashable:
    """Return all that a warm sandbox must have in common with a call. An alias and its version share sandboxes."""
    function = ":".join(call.arn.split(":")[:7])
    variables = tuple(sorted(call.environment.items()))
    return function, call.version, call.handler, str(call.code), call.role_arn, call.memory_mb, variables
