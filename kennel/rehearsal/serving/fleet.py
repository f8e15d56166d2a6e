"""The servers of one deployment: started together, asked in turn, drained before they go."""

from __future__ import annotations

import itertools
import shutil
import socket
import threading
import time
from pathlib import Path

import urllib3

from kennel.rehearsal.containers import Container, ContainerEngine, ContainerError, Process
from kennel.rehearsal.interfaces import Deployment, EndpointAnswer, EndpointCall

_ANSWER_S = 60.0  # SageMaker's limit for an answer
_START_S = 480.0  # its longest health check at start
_DRAIN_S = 30.0  # between SIGTERM and SIGKILL
_POLL_S = 0.05
_PORTS = 5  # ports tried
_CALLERS = 1000  # connections that are kept: as many as an account runs functions at once
_TIMED_OUT = b"Your invocation timed out while waiting for a response from container primary."


class EndpointError(RuntimeError):
    """An endpoint does not exist or could not be made; the text says why, with the end of the server's log."""


class Fleet:
    """Servers of one model, one for each instance. `roots` are their /opt/ml folders, to be filled before `start`."""

    def __init__(self, engine: ContainerEngine, deployment: Deployment, folder: Path) -> None:
        self._engine, self._deployment, self._folder = engine, deployment, folder
        self.roots = [folder / str(number) for number in range(max(1, deployment.instance_count))]
        self._servers = [_Server(engine, deployment, root) for root in self.roots]
        self._turns = itertools.cycle(self._servers)
        self._asking = 0
        self._quiet = threading.Condition()

    def start(self) -> None:
        """Return when every server answers /ping with 200; raises EndpointError when one does not."""
        for server in self._servers:
            server.start()
        for server in self._servers:
            server.wait()

    def enter(self) -> None:
        with self._quiet:
            self._asking += 1

    def leave(self) -> None:
        with self._quiet:
            self._asking -= 1
            self._quiet.notify_all()

    def ask(self, call: EndpointCall) -> EndpointAnswer:
        with self._quiet:
            server = next(self._turns)
        return server.ask(call)

    def drain(self) -> None:
        """Let those that are being answered finish, then stop."""
        with self._quiet:
            self._quiet.wait_for(lambda: not self._asking, _ANSWER_S)
        for server in self._servers:
            server.stop()
        self.close()

    def close(self) -> None:
        for server in self._servers:
            server.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class _Server:
    """One inference server as a container on this machine's loopback."""

    def __init__(self, engine: ContainerEngine, deployment: Deployment, root: Path) -> None:
        self._engine, self._deployment, self._root = engine, deployment, root
        self._process: Process | None = None
        self._revival = threading.Lock()
        self._closed = False
        self.port = 0

    def start(self) -> None:
        self.port = _free_port()
        self._pool = urllib3.HTTPConnectionPool(
            "127.0.0.1", self.port, maxsize=_CALLERS, retries=False, timeout=_ANSWER_S
        )
        environment = {
            **self._deployment.environment,
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "BIND_ADDRESS": "127.0.0.1",
        }
        container = Container(
            program="inference", root=self._root, arguments=["serve"], environment=environment, host="endpoint"
        )
        try:
            self._process = self._engine.start(container)
        except ContainerError as error:
            raise EndpointError(str(error)) from error
        if self._closed:  # meanwhile, by another thread
            self._process.kill()
            raise EndpointError(f"Endpoint {self._deployment.endpoint} was ended.")

    def wait(self) -> None:
        for _ in range(_PORTS):
            if self._answers():
                return
            if _is_free(self.port):  # not a port that somebody else took first
                break
            self.start()
        log = self._process.log if self._process else ""
        raise EndpointError(
            f"The primary container of {self._deployment.endpoint} ended before it passed the ping health check:\n{log}"
        )

    def ask(self, call: EndpointCall) -> EndpointAnswer:
        try:
            self._revive()
            answer = self._pool.request("POST", "/invocations", body=call.body, headers=dict(call.headers))
        except urllib3.exceptions.TimeoutError:
            return EndpointAnswer(504, _TIMED_OUT, {"Content-Type": "text/plain"})
        except (urllib3.exceptions.HTTPError, EndpointError) as error:
            if self._process:
                self._process.wait(_POLL_S * 10)  # if it crashed, its end may be yet to be seen
            reason = f"The container primary did not answer: {error}".encode()
            return EndpointAnswer(503, reason, {"Content-Type": "text/plain"})
        return EndpointAnswer(answer.status, answer.data, dict(answer.headers))

    def stop(self) -> None:
        if self._process:
            self._process.stop(_DRAIN_S)

    def close(self) -> None:
        self._closed = True
        if self._process:
            self._process.kill()
            self._pool.close()

    def _revive(self) -> None:
        """Start the server again if it died, as SageMaker does."""
        with self._revival:
            if self._process and self._process.poll() is not None:
                self._process.wait()  # its last words, and its pipe
                self._pool.close()
                self.start()
                self.wait()

    def _answers(self) -> bool:
        """Wait until the server is healthy; False when its process ends, EndpointError when it takes too long."""
        deadline = time.monotonic() + _START_S
        while self._process and self._process.poll() is None:
            try:
                if self._pool.request("GET", "/ping", timeout=2.0).status == 200 and self._process.poll() is None:
                    return True
            except urllib3.exceptions.HTTPError:
                pass  # not listening yet
            if time.monotonic() > deadline:
                raise EndpointError(f"The primary container did not pass the ping health check in {_START_S:.0f} s.")
            time.sleep(_POLL_S)
        if self._process:
            self._process.wait()
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
