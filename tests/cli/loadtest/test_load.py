"""The load, against a server on loopback whose answers the test chooses; and what its replies come to."""

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

from kennel.loadtest.load import (
    Load,
    OpenLoop,
    Plan,
    Reply,
    arrivals,
    closed_loop,
    judge,
    over_http,
    over_sagemaker,
    percentile,
)

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
        return OpenLoop(given, send, bodies).run()


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
    server.behave = slow(lambda number: 0.002)
    load = run(plan(server, rate=200.0, seconds=20.0, p99_ms=1.0))
    assert not load.held
    assert server.asked < 1000  # of 4040


def test_one_refusal_ends_the_load_and_is_told(server: Server) -> None:
    server.behave = lambda number: 503 if number == 12 else 200
    load = run(plan(server, seconds=600.0))
    assert (load.held, load.failed, load.error) == (False, 1, "503: {}")
    assert server.asked < 2000  # of 24,008


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


def test_a_closed_loop_keeps_as_many_requests_in_flight_as_it_has_connections() -> None:
    together = threading.Barrier(3, timeout=60)

    def ask(connection: int, turn: int) -> tuple[int, int]:
        together.wait()  # passes only if all three ask at once
        return connection, turn

    results = closed_loop(ask, 3, seconds=600, most=6)
    assert sorted(results) == [(connection, turn) for connection in range(3) for turn in range(2)]


def test_a_closed_loop_begins_nothing_after_its_time_and_raises_what_went_wrong() -> None:
    assert closed_loop(lambda connection, turn: turn, 2, seconds=0) == []
    with pytest.raises(ZeroDivisionError):
        closed_loop(lambda connection, turn: 1 / turn, 2, seconds=600)


def replies(count: int, *, latency: float = 0.010, every: float = 0.1, first: float = 0.0) -> list[Reply]:
    return [Reply(meant, meant, meant + latency) for meant in (first + every * number for number in range(count))]


def judged(given: list[Reply], *, planned: int, since: float = 0.0, seconds: float = 10.0, p99: float = 50.0) -> Load:
    return judge(given, rate=planned / seconds, planned=planned, since=since, seconds=seconds, p99_ms=p99)


def test_a_rate_holds_when_all_are_answered_and_99_of_100_in_time() -> None:
    late = [Reply(9.9, 9.9, 10.5)]
    assert judged(replies(99) + late, planned=100).held
    assert not judged(replies(98) + 2 * late, planned=100).held


def test_one_failure_breaks_a_rate_even_while_it_warms_up() -> None:
    warm = Reply(0.5, 0.5, 0.6, error="503: busy")
    load = judged([warm, *replies(100, first=2.0)], planned=100, since=2.0)
    assert (load.held, load.failed, load.error) == (False, 1, "503: busy")


def test_a_rate_whose_requests_were_not_all_sent_does_not_hold() -> None:
    assert not judged(replies(99), planned=100).held
    assert not judged([], planned=0).held


def test_latency_counts_from_when_a_request_was_meant_to_go() -> None:
    load = judged([Reply(1.0, 1.2, 1.25)], planned=1, p99=240.0)
    assert load.p50_ms == pytest.approx(250.0)
    assert not load.held
    assert load.late_ms == pytest.approx(200.0)


def test_the_warm_up_is_in_no_figure() -> None:
    slow = replies(20, latency=0.8)
    load = judged(slow + replies(100, first=2.8), planned=100, since=2.8)
    assert (load.requests, load.held) == (100, True)
    assert load.p99_ms == pytest.approx(10.0)


def test_concurrency_is_littles_law_and_the_peak_is_taken_in_tens_of_seconds() -> None:
    alone = replies(200, latency=0.05)  # 10 a second, 50 ms each, one at a time
    crowd = [Reply(3.0, 3.0, 3.5)] * 7  # in the first ten seconds, beside the one that comes at 3.0
    load = judged(alone + crowd, planned=207, seconds=20.0)
    assert load.concurrency == pytest.approx((200 * 0.05 + 7 * 0.5) / 20)
    assert load.concurrency_peak == (8 + 1) / 2


def test_what_began_before_the_counted_seconds_is_in_flight_in_them() -> None:
    load = judged([Reply(0.0, 0.0, 6.0), Reply(2.0, 2.0, 3.0)], planned=1, since=1.0, seconds=10.0)
    assert load.concurrency == pytest.approx((5.0 + 1.0) / 10)
    assert load.concurrency_peak == 2


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(1, 101)], share) == expected
