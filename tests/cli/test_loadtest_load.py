"""The load itself, against a server on loopback that answers as told."""

import dataclasses
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kennel.loadtest.load import Plan, Run, arrivals
from kennel.loadtest.outcome import Load
from kennel.loadtest.senders import over_http, over_sagemaker

Behaviour = Callable[[int], int]  # from the request's number (0, 1, ...) to the status


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behave: Behaviour = lambda number: 200
        self.asked, self.bodies, self.lock = 0, set[bytes](), threading.Lock()

    def handle_error(self, *arguments: object) -> None: ...  # a load that was ended hangs up


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.server.bodies.add(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:  # one at a time, as one core would
            number = self.server.asked
            self.server.asked += 1
            status = self.server.behave(number)
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield served
    served.shutdown()
    served.server_close()


def plan(server: Server, **changes: Any) -> Plan:
    url = f"http://127.0.0.1:{server.server_port}/invocations"
    plain: dict[str, Any] = {"url": url, "endpoint": "", "photos": (), "rate": 40.0, "warm": 0.2, "seconds": 1.0}
    return Plan(**(plain | {"p99_ms": 10_000.0} | changes))


def run(given: Plan, bodies: tuple[bytes, ...] = (b"one", b"two")) -> Load:
    with over_http(given.url, 5.0, 64) as send:
        return Run(given, send, bodies).go()


def slow(seconds: Callable[[int], float]) -> Behaviour:
    def behave(number: int) -> int:
        time.sleep(seconds(number))
        return 200

    return behave


def test_requests_are_due_at_random_but_the_same_ones_each_time_and_as_many_as_the_rate_says() -> None:
    given = Plan("", "", (), rate=100.0, warm=1.0, seconds=10.0, p99_ms=1.0)
    due = arrivals(given)
    assert due == arrivals(given) == sorted(due)
    assert (sum(each < 1.0 for each in due), sum(each >= 1.0 for each in due)) == (100, 1000)
    gaps = sorted(later - earlier for earlier, later in itertools.pairwise(due))
    assert gaps[len(gaps) // 2] == pytest.approx(0.0069, rel=0.2)  # an exponential's median: ln 2 of its mean
    assert due != arrivals(dataclasses.replace(given, seed=1))


def test_a_server_that_keeps_up_holds_and_gets_every_picture(server: Server) -> None:
    load = run(plan(server))
    assert (load.held, load.requests, load.failed) == (True, 40, 0)
    assert server.asked == 48  # 8 of them to warm up
    assert server.bodies == {b"one", b"two"}


def test_what_was_due_while_the_server_stalled_counts_as_late(server: Server) -> None:
    """A load that waits for each answer would have one slow request of forty."""
    server.behave = slow(lambda number: 0.5 if number == 20 else 0)
    load = run(plan(server))
    assert load.p50_ms is not None and load.p95_ms is not None
    late = load.concurrency * 1000 / load.rate  # mean latency, by Little's law
    assert load.p95_ms > 300
    assert late > 50
    assert load.concurrency_peak > 8


def test_a_target_that_is_lost_ends_the_load_early(server: Server) -> None:
    server.behave = slow(lambda number: 0.02)  # holds 50 a second, not 200
    load = run(plan(server, rate=200.0, seconds=5.0, p99_ms=100.0))
    assert not load.held
    assert server.asked < 500  # of 1040


def test_one_refusal_ends_the_load_and_is_told(server: Server) -> None:
    server.behave = lambda number: 503 if number == 12 else 200
    load = run(plan(server, seconds=20.0))
    assert (load.held, load.failed, load.error) == (False, 1, "503: {}")
    assert server.asked < 40


def test_a_server_that_is_gone_is_a_failure_and_no_crash(server: Server) -> None:
    given = plan(server, url="http://127.0.0.1:9/invocations")
    load = run(given)
    assert (load.held, load.p99_ms) == (False, None)
    assert "refused" in load.error


def test_the_load_runs_in_a_process_of_its_own(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(b"a photo")
    given = dataclasses.asdict(plan(server, photos=(str(tmp_path / "photo"),)))
    command = [sys.executable, "-m", "kennel.loadtest.load"]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=True)
    load = Load(**json.loads(done.stdout))
    assert (load.held, load.requests) == (True, 40)
    assert server.bodies == {b"a photo"}


def test_an_endpoint_is_asked_through_sagemaker_once_and_not_again(
    server: Server, aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    with over_sagemaker("kennel-dev", 5.0, 4) as send:
        assert send(b"a photo") == ""
        server.behave = lambda number: 500
        assert send(b"a photo").startswith("ClientError: ")
    assert server.asked == 2
    assert server.bodies == {b"a photo"}
