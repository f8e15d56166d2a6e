"""SageMaker endpoints: fetch the model, start its inference servers, share requests among fleets, invoke them."""

import itertools
import math
import shutil
import socket
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import urllib3
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from kennel.rehearsal.containers.engine import Container, ContainerEngine, ContainerError, Process
from kennel.rehearsal.containers.local import free_port
from kennel.rehearsal.interfaces import Deployment, EndpointAnswer, EndpointCall
from kennel.verify.archive import unpack

_START_S = 480.0  # its longest health check at start
_DRAIN_S = 30.0  # between SIGTERM and SIGKILL
_POLL_S = 0.05
_PORTS = 5  # ports tried
_CONNECTIONS = 1000  # kept alive: as many as an account runs functions at once
_TIMED_OUT = b"Your invocation timed out while waiting for a response from container primary."


class EndpointError(ContainerError):
    """An endpoint does not exist or could not be created; the text says why, with the end of the server's log."""


class Endpoints:
    """All endpoints of the embedded AWS.

    `client(service, role_arn)` returns a boto3 client that calls as that role; models are unpacked below `work`.
    Methods may be called from any thread.
    """

    def __init__(self, *, client: Callable[[str, str | None], Any], engine: ContainerEngine, work: Path) -> None:
        self._client, self._engine, self._work = client, engine, work
        self._fleets: dict[str, dict[str, Fleet]] = {}  # by endpoint and configuration
        self._routes: dict[str, _Route] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._closed = False

    def deploy(self, deployment: Deployment) -> None:
        """Start the servers of a fleet, which gets no requests before `route` says so.

        Raise EndpointError with the reason when they cannot be started.
        """
        folder = self._work / deployment.endpoint / str(next(self._numbers))
        fleet = Fleet(self._engine, deployment, folder)
        try:
            s3 = self._client("s3", deployment.role_arn)
            for root in fleet.roots:
                fetch_model(s3, deployment.model_data_url, root / "model")
            fleet.start()
            with self._lock:
                if self._closed:
                    raise EndpointError("The endpoints have been shut down.")
                self._fleets.setdefault(deployment.endpoint, {})[deployment.config] = fleet
        except BaseException:
            fleet.close()
            raise

    def route(self, name: str, shares: Mapping[str, float]) -> None:
        """Share requests among the fleets of an endpoint, by configuration; fleets not named are drained and ended."""
        with self._lock:
            fleets = self._fleets[name]
            self._routes[name] = _Route(shares)
            ended = [fleets.pop(config) for config in [*fleets] if config not in shares]
        for fleet in ended:
            fleet.drain()

    def invoke(self, call: EndpointCall) -> EndpointAnswer:
        """Return the server's own answer; raise EndpointError for an endpoint that does not exist."""
        with self._lock:
            if call.endpoint not in self._routes:
                raise EndpointError(f"Endpoint {call.endpoint} not found.")
            config, share = self._routes[call.endpoint].choose()
            fleet = self._fleets[call.endpoint][config]
            fleet.begin_request()
        began = time.monotonic()
        answer = fleet.invoke(call, share)
        return replace(answer, config=config, seconds=time.monotonic() - began)

    def delete(self, name: str) -> None:
        """Let requests in progress finish, then stop the servers; do nothing for an endpoint that does not exist."""
        with self._lock:
            self._routes.pop(name, None)
            fleets = self._fleets.pop(name, {})
        for fleet in fleets.values():
            fleet.drain()

    def close(self) -> None:
        """Kill all servers now."""
        with self._lock:
            self._closed = True
            fleets = [fleet for by_config in self._fleets.values() for fleet in by_config.values()]
            self._fleets, self._routes = {}, {}
        for fleet in fleets:
            fleet.close()


class _Route:
    """Shares of requests by configuration; each fleet gets its share as evenly as whole requests allow."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._shares = shares
        self._due = dict.fromkeys(shares, 0.0)

    def choose(self) -> tuple[str, float]:
        """Return the configuration that gets the next request, and its share of all."""
        for config, share in self._shares.items():
            self._due[config] += share
        config = max(self._due, key=lambda one: self._due[one])
        self._due[config] -= 1
        return config, self._shares[config]


class Fleet:
    """The servers of one deployment, one for each instance. `roots` are their /opt/ml folders."""

    def __init__(self, engine: ContainerEngine, deployment: Deployment, folder: Path) -> None:
        self._folder, self._longest = folder, deployment.answer_seconds
        self.roots = [folder / str(number) for number in range(max(1, deployment.instance_count))]
        self._servers = [_Server(engine, deployment, root) for root in self.roots]
        self._turns = itertools.count()
        self._requests = 0
        self._changed = threading.Condition()

    def start(self) -> None:
        """Return when every server answers /ping with 200; raise EndpointError when one does not."""
        for server in self._servers:
            server.start()
        for server in self._servers:
            server.wait_until_healthy()

    def begin_request(self) -> None:
        with self._changed:
            self._requests += 1

    def invoke(self, call: EndpointCall, share: float = 1.0) -> EndpointAnswer:
        """Return the answer of the next server in turn, which ends the request.

        A fleet with a part of the traffic has as large a part of its servers in it.
        """
        active = math.ceil(share * len(self._servers))
        with self._changed:
            server = self._servers[next(self._turns) % active]
        try:
            return server.invoke(call)
        finally:
            with self._changed:
                self._requests -= 1
                self._changed.notify_all()

    def drain(self) -> None:
        """Stop the servers when the requests in progress have been answered."""
        with self._changed:
            self._changed.wait_for(lambda: not self._requests, self._longest)
        for server in self._servers:
            server.stop()
        self.close()

    def close(self) -> None:
        for server in self._servers:
            server.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class _Server:
    """One inference server as a container on this machine's loopback interface."""

    def __init__(self, engine: ContainerEngine, deployment: Deployment, root: Path) -> None:
        self._engine, self._deployment, self._root = engine, deployment, root
        self._process: Process | None = None
        self._restart = threading.Lock()
        self._closed = False
        self.port = 0

    def start(self) -> None:
        self.port = free_port()
        self._pool = urllib3.HTTPConnectionPool(
            "127.0.0.1",
            self.port,
            maxsize=_CONNECTIONS,
            retries=False,
            timeout=self._deployment.answer_seconds,
        )
        environment = {
            **self._deployment.environment,
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "BIND_ADDRESS": "127.0.0.1",
        }
        container = Container(
            program="inference",
            root=self._root,
            image=self._deployment.image,
            arguments=["serve"],
            environment=environment,
            host="endpoint",
        )
        self._process = self._engine.start(container)
        if self._closed:  # by another thread while the server started
            self._process.kill()
            raise EndpointError(f"Endpoint {self._deployment.endpoint} was ended.")

    def wait_until_healthy(self) -> None:
        for _ in range(_PORTS):
            if self._is_healthy():
                return
            if _is_free(self.port):  # so the server did not end because another program took its port
                break
            self.start()
        log = self._process.log if self._process else ""
        raise EndpointError(
            f"The primary container of {self._deployment.endpoint} ended before it passed the ping health check:\n{log}"
        )

    def invoke(self, call: EndpointCall) -> EndpointAnswer:
        try:
            self._restart_if_ended()
            answer = self._pool.request("POST", "/invocations", body=call.body, headers=dict(call.headers))
        except urllib3.exceptions.ReadTimeoutError:  # a refused connection is one of urllib3's time-outs too
            return EndpointAnswer(504, _TIMED_OUT, {"Content-Type": "text/plain"}, broken=True)
        except (urllib3.exceptions.HTTPError, ContainerError) as error:
            if self._process:
                self._process.wait(_POLL_S * 10)  # so that the next request sees the end of a crashed server
            reason = f"The container primary did not answer: {error}".encode()
            return EndpointAnswer(503, reason, {"Content-Type": "text/plain"}, broken=True)
        return EndpointAnswer(answer.status, answer.data, dict(answer.headers))

    def stop(self) -> None:
        if self._process:
            self._process.stop(_DRAIN_S)

    def close(self) -> None:
        self._closed = True
        if self._process:
            self._process.kill()
            self._pool.close()

    def _restart_if_ended(self) -> None:
        """Start the server again if it has ended, as SageMaker does."""
        with self._restart:
            if self._process and self._process.poll() is not None:
                self._process.wait()  # for the rest of its output
                self._pool.close()
                self.start()
                self.wait_until_healthy()

    def _is_healthy(self) -> bool:
        """Wait for a healthy server; return False when its process ends, raise EndpointError when it takes too long."""
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


def fetch_model(s3: Any, url: str, folder: Path) -> None:
    """Download and unpack model.tar.gz; raise EndpointError when it cannot be read or would write outside `folder`."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder.parent, suffix=".tar.gz") as archive:
        try:
            s3.download_fileobj(bucket, key, archive)
            archive.flush()
            with tarfile.open(archive.name) as tar:
                unpack(tar, folder)
        except ClientError as error:
            raise EndpointError(f"Failed to download model data from {url}: {error}") from error
        except (tarfile.TarError, EOFError, OSError) as error:
            raise EndpointError(f"Failed to extract model data from {url}: {error}") from error


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
