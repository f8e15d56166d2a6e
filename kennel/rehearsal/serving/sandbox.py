"""One execution environment of a function: AWS's own runtime client for Python in a process of its own."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping

from kennel.rehearsal.containers import Process
from kennel.rehearsal.interfaces import FunctionAnswer, FunctionCall
from kennel.rehearsal.serving.runtime_api import PAYLOAD, Invocation, Posted, RuntimeApi

_INIT_S = 10.0  # Lambda's limit for initialization
_LOG = 4096  # bytes of log that Invoke returns
_POLL_S = 0.2  # between looks at whether the process still lives


class Sandbox:
    """Takes one invocation at a time. `credentials`: the role's AWS_* variables."""

    def __init__(self, call: FunctionCall, credentials: Mapping[str, str]) -> None:
        self._api = RuntimeApi()
        # A file, not a pipe: what was printed before an answer is there when the answer is.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        fcntl.fcntl(self._output, fcntl.F_SETFL, os.O_APPEND | os.O_RDWR)  # so that it can be emptied meanwhile
        self._fresh = True
        self.alive = True
        try:
            self._process = Process(
                [sys.executable, "-B", "-m", "awslambdaric", call.handler],  # -B: a function's code is read-only
                environment={**environment(call, self._api.address), **credentials, **call.environment},
                cwd=call.code,
                output=self._output.fileno(),
            )
        except BaseException:
            self._api.close()
            self._output.close()
            raise

    def invoke(self, call: FunctionCall) -> FunctionAnswer:
        """Return the function's answer or what Lambda says instead; after some errors the sandbox is not `alive`."""
        request = str(uuid.uuid4())
        began = time.monotonic()
        posted = None if self._initialized() else self._wait("", 0.0)
        initialized = time.monotonic()
        if posted is None:
            self._api.invocations.put(Invocation(request, call.payload, time.time() + call.timeout_s, call.arn))
            posted = self._wait(request, call.timeout_s)
        body, error = self._judge(posted, request, call)
        milliseconds = (time.monotonic() - initialized) * 1000
        init = f"\tInit Duration: {(initialized - began) * 1000:.2f} ms" if self._fresh else ""
        self._fresh = False
        log = self._log(request, call, f"Duration: {milliseconds:.2f} ms\tBilled Duration: {milliseconds:.0f} ms", init)
        return FunctionAnswer(body, error, log)

    def kill(self) -> None:
        """End the process; an invocation that is running gets an error."""
        self.alive = False
        self._process.kill()

    def close(self) -> None:
        self.kill()
        self._api.close()
        self._output.close()

    def _initialized(self) -> bool:
        """Wait until the runtime asks for work; False when it reports an error, ends, or takes too long."""
        deadline = time.monotonic() + _INIT_S
        while not self._api.ready.wait(0.005):
            if self._process.poll() is not None or not self._api.posted.empty() or time.monotonic() > deadline:
                return self._api.ready.is_set()
        return True

    def _wait(self, request: str, timeout: float) -> Posted | None:
        """What the runtime posts for `request`, or None when it is too late or the process has ended."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            try:
                posted = self._api.posted.get(timeout=min(max(left, 0.001), _POLL_S))
            except queue.Empty:
                if left <= 0 or (self._process.poll() is not None and self._api.posted.empty()):
                    return None
                continue
            if posted.id in (request, ""):
                return posted

    def _judge(self, posted: Posted | None, request: str, call: FunctionCall) -> tuple[bytes, str | None]:
        if posted and posted.kind == "response":
            return posted.body, None
        if posted and posted.kind == "error":
            return posted.body, "Unhandled"
        self.alive = False
        if posted and posted.kind == "init":
            return posted.body, "Unhandled"
        if posted:
            message = f"Response payload size exceeded maximum allowed payload size ({PAYLOAD} bytes)."
            return _error("Function.ResponseSizeTooLarge", message), "Unhandled"
        code = self._process.poll()
        if code is not None:
            status = f"signal: {code - 128}" if code > 128 else f"exit status {code}"
            return _error("Runtime.ExitError", f"RequestId: {request} Error: Runtime exited: {status}"), "Unhandled"
        if not self._api.ready.is_set():
            return _error("Sandbox.Timedout", f"RequestId: {request} Error: Init timed out after 10 s"), "Unhandled"
        message = f"RequestId: {request} Error: Task timed out after {call.timeout_s:.2f} seconds"
        return _error("Sandbox.Timedout", message), "Unhandled"

    def _log(self, request: str, call: FunctionCall, duration: str, init: str) -> str:
        size = self._output.seek(0, 2)
        self._output.seek(max(0, size - _LOG))
        printed = self._output.read()
        if self.alive:
            self._output.truncate(0)  # the process appends; the next invocation begins a log of its own
        head = f"START RequestId: {request} Version: {call.version}\n"
        memory = f"\tMemory Size: {call.memory_mb} MB"
        tail = f"END RequestId: {request}\nREPORT RequestId: {request}\t{duration}{memory}{init}\n"
        whole = head.encode() + printed + tail.encode()
        return whole[-_LOG:].decode("utf-8", errors="replace")


def environment(call: FunctionCall, api: str) -> dict[str, str]:
    """The variables that Lambda itself sets, and nothing of this process's."""
    region, name = call.arn.split(":")[3], call.arn.split(":")[6]
    return {
        "PATH": "/usr/local/bin:/usr/bin/:/bin",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "HOME": tempfile.gettempdir(),
        "LAMBDA_TASK_ROOT": str(call.code),
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info[0]}.{sys.version_info[1]}",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": call.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(call.memory_mb),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"[{call.version}]{uuid.uuid4().hex}",
        "AWS_LAMBDA_RUNTIME_API": api,
        "_HANDLER": call.handler,
    }


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()
