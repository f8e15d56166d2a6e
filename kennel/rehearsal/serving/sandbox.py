"""One execution environment of a Lambda function: AWS's own runtime client in a process, and its Runtime API.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import fcntl
import json
import os
import queue
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, Literal, cast

from werkzeug.serving import DechunkedInput

from kennel.rehearsal.containers.engine import Process
from kennel.rehearsal.interfaces import FunctionAnswer, FunctionCall

PAYLOAD_LIMIT = 6 * 1024 * 1024  # bytes, of a request and of an answer
_INIT_S = 10.0  # Lambda's limit for initialization
_LOG = 4096  # bytes of log that Invoke returns
_POLL_S = 0.2  # how often the process is checked for its end
_OF_BROWSERS = ("Origin", "Referer", "Sec-Fetch-Site")  # with a GET or a form from another site there is no Origin
_CONNECTIONS = Path("/proc/net/tcp")


class Sandbox:
    """A process with AWS's runtime client, for one invocation at a time. `credentials`: the role's AWS_* variables."""

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
        """Return the function's answer, or Lambda's own error in its place; after some errors `alive` is false."""
        request = str(uuid.uuid4())
        began = time.monotonic()
        posted = None if self._initialized() else self._wait("", 0.0)
        initialized = time.monotonic()
        if posted is None:
            self._api.invocations.put(Invocation(request, call.payload, time.time() + call.timeout_s, call.arn))
            posted = self._wait(request, call.timeout_s)
        body, error = self._answer_of(posted, request, call)
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
        """Return true when the runtime asks for an event, false when it reports an error, ends or takes too long."""
        deadline = time.monotonic() + _INIT_S
        while not self._api.ready.wait(0.005):
            if self._process.poll() is not None or not self._api.posted.empty() or time.monotonic() > deadline:
                return self._api.ready.is_set()
        return True

    def _wait(self, request: str, timeout: float) -> "Posted | None":
        """Return what the runtime posts for `request`, or None when it is too late or the process has ended."""
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

    def _answer_of(self, posted: "Posted | None", request: str, call: FunctionCall) -> tuple[bytes, str | None]:
        if posted and posted.kind == "response":
            return posted.body, None
        if posted and posted.kind == "error":
            return posted.body, "Unhandled"
        self.alive = False
        if posted and posted.kind == "init":
            return posted.body, "Unhandled"
        if posted:
            message = f"Response payload size exceeded maximum allowed payload size ({PAYLOAD_LIMIT} bytes)."
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
    """Return the variables that Lambda itself sets; none of this process's."""
    region, name = call.arn.split(":")[3], call.arn.split(":")[6]
    return {
        "PATH": "/usr/local/bin:/usr/bin/:/bin",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "HOME": str(call.code.parent),  # nobody else can leave settings or Python packages there
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


@dataclass
class Invocation:
    """One event for the runtime client. `deadline` is in seconds since 1970."""

    id: str
    payload: bytes
    deadline: float
    arn: str


@dataclass(frozen=True)
class Posted:
    """One answer of the runtime client: a response, an error of the function, or an error of its initialization."""

    kind: Literal["response", "error", "init", "oversized"]
    body: bytes
    id: str = ""


@dataclass
class RuntimeApi:
    """Lambda's Runtime API (2018-06-01) for one sandbox, as a server on loopback at `address`.

    Put events into `invocations` and get answers from `posted`; `ready` is set when the client first asks for one.
    """

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
        self.invocations.put(None)  # ends the thread that waits for the next event
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    api: RuntimeApi

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether a program of this user connects: others of the machine could take events and answer them."""
        return _same_user(client_address[1], self.server_port)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report nothing: a sandbox that is killed breaks its connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def api(self) -> RuntimeApi:
        return cast(_Server, self.server).api

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def parse_request(self) -> bool:
        """Refuse what a browser sends, and what comes by a name that leads here through DNS rebinding."""
        if not super().parse_request():
            return False
        if self.headers.get("Host") == self.api.address and not any(name in self.headers for name in _OF_BROWSERS):
            return True
        self.close_connection = True  # nobody reads its body
        self.send_error(403)
        return False

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
            case ["invocation", name, "response"] if len(body) > PAYLOAD_LIMIT:
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
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks: Any = DechunkedInput(cast(IO[bytes], self.rfile))
            return bytes(chunks.readall())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _same_user(port: int, server_port: int) -> bool:
    """Return whether this user owns the end at `port` of a connection over loopback; True where only Linux could tell.

    proc(5): the columns are number, local address, remote address, state, two queues, timer, retransmissions, uid.
    """
    try:
        rows = [line.split() for line in _CONNECTIONS.read_text().splitlines()[1:]]
    except OSError:
        return True
    ends = (f":{port:04X}", f":{server_port:04X}")
    owners = (int(row[7]) for row in rows if row[1].endswith(ends[0]) and row[2].endswith(ends[1]))
    return os.getuid() in owners
