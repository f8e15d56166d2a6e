"""Endpoints serve a model as a process: from its archive to an answer, and from one model to the next."""

import io
import json
import signal
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from moto import mock_aws

from kennel.rehearsal.containers.engine import Container, ContainerEngine, Process
from kennel.rehearsal.containers.local import free_port, pick_engine
from kennel.rehearsal.interfaces import Deployment, EndpointCall
from kennel.rehearsal.serving import endpoints as endpoints_module
from kennel.rehearsal.serving.endpoints import EndpointError, Endpoints

pytestmark = pytest.mark.long  # real processes, half a second each and more: not on every save

ROLE = "arn:aws:iam::123456789012:role/endpoint"
SERVER = """
import http.server, json, os, pathlib, signal, sys, time
name = (pathlib.Path(os.environ.get("OPT_ML", "/opt/ml")) / "model" / "name").read_text()
if name == "broken": sys.exit("this model is broken")
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
    def do_GET(self): self.answer(200, b"")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"slow": time.sleep(1)
        if body == b"hang": time.sleep(600)
        if body == b"die": os._exit(9)
        if body == b"bad": return self.answer(415, b"no")
        said = {"name": name, "kind": self.headers["Content-Type"],
                "target": self.headers["X-Amzn-SageMaker-Target-Variant"],
                "bytes": len(body), "pid": os.getpid(), "given": os.environ.get("MODEL_PACKAGE_ARN")}
        self.answer(200, json.dumps(said).encode())
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))
server.serve_forever()
"""


class StandIn:
    """The machine's own engine with a server of a few lines in place of the image's."""

    def __init__(self) -> None:
        self._engine: ContainerEngine = pick_engine()
        self.name, self.notice = self._engine.name, self._engine.notice
        self.network, self.build = self._engine.network, self._engine.build
        self.started: list[Process] = []

    def close(self) -> None:
        self._engine.close()

    def start(self, container: Container) -> Process:
        assert container.program == "inference"
        assert [*container.arguments] == ["serve"]
        stand_in = replace(container, entrypoint=["python3", "-c", SERVER], arguments=[])
        self.started.append(self._engine.start(stand_in))
        return self.started[-1]


@pytest.fixture
def engine() -> StandIn:
    return StandIn()


@pytest.fixture
def asked() -> list[tuple[str, str | None]]:
    return []


@pytest.fixture
def endpoints(
    engine: StandIn, asked: list[tuple[str, str | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Endpoints]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")

    def client(service: str, role: str | None) -> Any:
        asked.append((service, role))
        return boto3.client(service, region_name="us-east-1")

    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="models")
        for name in ("one", "two", "broken"):
            s3.put_object(Bucket="models", Key=f"{name}.tar.gz", Body=_archive(name))
        s3.put_object(Bucket="models", Key="hostile.tar.gz", Body=_archive("x", "../../escaped"))
        s3.put_object(Bucket="models", Key="cut.tar.gz", Body=_archive("one")[:60])
        made = Endpoints(client=client, engine=engine, work=tmp_path / "work")
        yield made
        made.close()


def _archive(content: str, member: str = "name") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content.encode()))
    return packed.getvalue()


def _deployment(model: str, count: int = 1) -> Deployment:
    url = f"s3://models/{model}.tar.gz"
    return Deployment("kennel-dev", model, "inference", url, ROLE, {"MODEL_PACKAGE_ARN": f"arn of {model}"}, count)


def _serve(endpoints: Endpoints, deployment: Deployment) -> None:
    """Let the deployment's fleet alone get all requests."""
    endpoints.deploy(deployment)
    endpoints.route(deployment.endpoint, {deployment.config: 1.0})


def _ask(endpoints: Endpoints, body: bytes = b"picture") -> dict[str, Any]:
    headers = {"Content-Type": "image/jpeg", "X-Amzn-SageMaker-Target-Variant": "AllTraffic"}
    answer = endpoints.invoke(EndpointCall("kennel-dev", body, headers))
    assert answer.status == 200, answer
    value: dict[str, Any] = json.loads(answer.body)
    return value


def test_a_model_is_fetched_as_the_endpoints_role_and_answers(endpoints: Endpoints, asked: list[Any]) -> None:
    _serve(endpoints, _deployment("one"))
    said = _ask(endpoints)
    assert (said["name"], said["kind"], said["target"], said["bytes"]) == ("one", "image/jpeg", "AllTraffic", 7)
    assert said["given"] == "arn of one"
    assert asked == [("s3", ROLE)]


def test_a_server_that_starts_while_the_endpoints_are_ended_does_not_stay(
    endpoints: Endpoints, engine: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    _end_during_start(endpoints, engine, monkeypatch)
    with pytest.raises(EndpointError):
        _serve(endpoints, _deployment("one"))
    assert [process.poll() is not None for process in engine.started] == [True]


def test_a_server_that_is_revived_while_the_endpoints_are_ended_does_not_stay(
    endpoints: Endpoints, engine: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    _serve(endpoints, _deployment("one"))
    assert endpoints.invoke(EndpointCall("kennel-dev", b"die", {})).status == 503
    _end_during_start(endpoints, engine, monkeypatch)
    assert endpoints.invoke(EndpointCall("kennel-dev", b"picture", {})).status == 503
    assert [process.poll() is not None for process in engine.started] == [True, True]


def _listens(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def _end_during_start(endpoints: Endpoints, engine: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    start = engine.start

    def start_and_end(container: Container) -> Process:
        process = start(container)
        address = ("127.0.0.1", int(container.environment["SAGEMAKER_BIND_TO_PORT"]))
        while not _listens(address):
            time.sleep(0.02)
        endpoints.close()
        return process

    monkeypatch.setattr(engine, "start", start_and_end)


def test_the_servers_own_error_comes_back_as_it_is(endpoints: Endpoints) -> None:
    _serve(endpoints, _deployment("one"))
    answer = endpoints.invoke(EndpointCall("kennel-dev", b"bad", {}))
    assert (answer.status, answer.body) == (415, b"no")


def test_two_instances_take_turns(endpoints: Endpoints) -> None:
    _serve(endpoints, _deployment("one", count=2))
    pids = [_ask(endpoints)["pid"] for _ in range(4)]
    assert pids[:2] == pids[2:]


def test_a_server_that_dies_is_quoted_and_the_old_one_stays(endpoints: Endpoints) -> None:
    _serve(endpoints, _deployment("one"))
    with pytest.raises(EndpointError, match=r"(?s)ping health check.*this model is broken"):
        endpoints.deploy(_deployment("broken"))
    assert _ask(endpoints)["name"] == "one"


def test_no_request_fails_while_one_model_takes_the_place_of_another(endpoints: Endpoints, engine: StandIn) -> None:
    _serve(endpoints, _deployment("one"))
    stop, names = threading.Event(), list[str]()

    def ask() -> None:
        while not stop.is_set():
            names.append(_ask(endpoints, b"slow" if not names else b"x")["name"])

    with ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(ask) for _ in range(3)]
        _serve(endpoints, _deployment("two"))
        while "two" not in names:
            time.sleep(0.02)
        stop.set()
        for caller in callers:
            caller.result()
    assert set(names) == {"one", "two"}
    assert _ask(endpoints)["name"] == "two"
    assert engine.started[0].poll() == 0  # by SIGTERM, after its last answer


def test_an_archive_that_would_leave_its_folder_or_is_cut_off_is_refused(endpoints: Endpoints, tmp_path: Path) -> None:
    for model in ("hostile", "cut", "absent"):
        with pytest.raises(EndpointError, match=f"model data from s3://models/{model}.tar.gz"):
            endpoints.deploy(_deployment(model))
    assert not [*tmp_path.rglob("escaped")]
    with pytest.raises(EndpointError, match="Endpoint kennel-dev not found"):
        endpoints.invoke(EndpointCall("kennel-dev", b"", {}))


def test_a_port_that_somebody_took_first_is_survived(endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1]])
        monkeypatch.setattr(endpoints_module, "free_port", lambda: next(ports, None) or free_port())
        _serve(endpoints, _deployment("one"))
        assert _ask(endpoints)["name"] == "one"


def test_a_server_that_crashed_is_started_again(endpoints: Endpoints) -> None:
    _serve(endpoints, _deployment("one"))
    answer = endpoints.invoke(EndpointCall("kennel-dev", b"die", {}))
    assert answer.status == 503
    assert _ask(endpoints)["name"] == "one"


def test_an_answer_that_takes_too_long_becomes_an_error(endpoints: Endpoints) -> None:
    _serve(endpoints, replace(_deployment("one"), answer_seconds=0.5))
    answer = endpoints.invoke(EndpointCall("kennel-dev", b"hang", {}))
    assert (answer.status, answer.broken, answer.config) == (504, True, "one")
    assert answer.body.startswith(b"Your invocation timed out")


def test_delete_and_close_leave_no_server(endpoints: Endpoints, engine: StandIn) -> None:
    _serve(endpoints, _deployment("one"))
    endpoints.delete("kennel-dev")
    endpoints.delete("kennel-dev")
    assert engine.started[0].poll() == 0
    _serve(endpoints, _deployment("two"))
    endpoints.close()
    assert engine.started[1].poll() == 128 + signal.SIGKILL


def test_fleets_side_by_side_get_their_shares_and_one_without_a_share_ends(
    endpoints: Endpoints, engine: StandIn
) -> None:
    _serve(endpoints, _deployment("one", count=2))
    endpoints.deploy(_deployment("two", count=2))
    assert {_ask(endpoints)["name"] for _ in range(4)} == {"one"}
    endpoints.route("kennel-dev", {"one": 0.75, "two": 0.25})
    said = [_ask(endpoints) for _ in range(12)]
    assert [one["name"] for one in said].count("two") == 3
    assert len({one["pid"] for one in said if one["name"] == "two"}) == 1  # a canary of one instance
    endpoints.route("kennel-dev", {"one": 1.0})
    assert {_ask(endpoints)["name"] for _ in range(4)} == {"one"}
    assert [process.poll() for process in engine.started] == [None, None, 0, 0]
