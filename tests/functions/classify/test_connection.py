"""The connection to the endpoint: kept between calls, replaced when it was lost, bounded by the deadline."""

import socket
import threading
import time
from typing import Any

import pytest
import urllib3

from classify import logic
from classify.deadline import Deadline
from tests.functions.fakes import Context, Endpoint, Reply, code_of, peer, probabilities, read_request

GOOD = b'HTTP/1.1 200 OK\r\nContent-Length: 46\r\n\r\n{"probabilities":[1.0],"classes":["a"]}       '


def test_one_connection_serves_all_calls_of_a_sandbox(endpoint: Endpoint) -> None:
    assert [code_of() for _ in range(3)] == ["ok"] * 3
    assert len(endpoint.peers) == 3
    assert len(set(endpoint.peers)) == 1


def test_each_call_over_a_kept_connection_has_its_own_deadline(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts: list[Any] = []
    urlopen = urllib3.HTTPConnectionPool.urlopen

    def watched(*arguments: Any, **options: Any) -> Any:
        timeouts.append(options["timeout"].total)
        return urlopen(*arguments, **options)

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "urlopen", watched)
    code_of(seconds=30.0)
    code_of(seconds=60.0)
    short, long = timeouts
    assert short <= 29.5 < long <= 59.5


def test_the_answer_is_due_half_a_second_before_lambda_ends_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    assert Deadline.of_invocation(Context(20.0)).at == 119.5
    assert Deadline.of_invocation(None).at == 124.5


def test_with_no_time_left_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classify.deadline.Thread", None)
    with pytest.raises(TimeoutError):
        Deadline.after(0).run(list)


def test_an_error_answer_costs_no_connection(endpoint: Endpoint, pauses: list[float]) -> None:
    endpoint.replies = [Reply(429, {}, "ThrottlingException"), probabilities(1.0)]
    assert code_of() == "ok"
    assert len(set(endpoint.peers)) == 1


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_at_once(
    environment: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    with peer(environment, [GOOD], [GOOD]) as counts:
        assert [code_of(), code_of()] == ["ok", "ok"]
    assert counts == [1, 1]
    assert pauses == []


def test_a_request_that_was_read_but_not_answered_is_sent_again_at_once(
    environment: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    """A prediction changes nothing, so the second one costs no more than its time."""
    with peer(environment, [GOOD, b""], [GOOD]) as counts:
        assert [code_of(), code_of()] == ["ok", "ok"]
    assert counts == [2, 1]
    assert pauses == []


def test_a_connection_that_breaks_again_and_again_is_tried_after_pauses(
    environment: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    with peer(environment, *[[b""]] * 4) as counts:
        assert code_of() == "endpoint_unavailable"
    assert counts == [1] * 4
    assert pauses == [0.2, 0.4]


@pytest.mark.parametrize(
    "unasked", [b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b'HTTP/1.1 200 OK\r\n\r\n{"a": 1}']
)
def test_bytes_that_nobody_asked_for_are_no_answer_to_the_next_request(
    environment: pytest.MonkeyPatch, unasked: bytes
) -> None:
    """Load balancers write such a line before they close a silent connection."""
    with peer(environment, [GOOD + unasked], [GOOD]) as counts:
        assert [code_of(), code_of()] == ["ok", "ok"]
    assert counts == [1, 1]


def test_a_connection_that_the_endpoint_closes_for_writing_only_is_replaced(
    environment: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    over = threading.Event()

    def serve(server: socket.socket) -> None:
        for _ in range(2):
            with server.accept()[0] as sock:
                read_request(sock)
                sock.sendall(GOOD)
                sock.shutdown(socket.SHUT_WR)
                kept.append(sock.dup())  # open for reading until the test is over
        over.wait(60)

    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        environment.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", f"http://127.0.0.1:{server.getsockname()[1]}")
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        assert [code_of(), code_of()] == ["ok", "ok"]
        over.set()
        thread.join()
    for sock in kept:
        sock.close()
    assert len(kept) == 2
    assert pauses == []


def test_an_answer_before_the_request_was_read_is_taken(environment: pytest.MonkeyPatch) -> None:
    def serve(server: socket.socket) -> None:
        with server.accept()[0] as sock:
            sock.recv(100)
            sock.sendall(b"HTTP/1.1 424 Failed\r\nx-amzn-ErrorType: ModelError\r\nContent-Length: 26\r\n\r\n")
            sock.sendall(b'{"OriginalStatusCode":413}')
            while sock.recv(65536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        environment.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", f"http://127.0.0.1:{server.getsockname()[1]}")
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        assert code_of() == "too_large"
        logic.runtime().pool.close()


def test_an_address_that_does_not_answer_is_dialled_again(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    seconds: list[Any] = []
    real = urllib3.util.connection.create_connection

    def connect(address: tuple[str, int], timeout: Any = None, *arguments: Any, **options: Any) -> socket.socket:
        seconds.append(timeout)
        if len(seconds) == 1:
            raise TimeoutError
        return real(address, timeout, *arguments, **options)

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    assert code_of() == "ok"
    assert (seconds, pauses) == ([2.0, 2.0], [0.1])


def test_an_answer_that_breaks_off_is_asked_for_again_over_a_new_connection(
    environment: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    with peer(environment, [GOOD[:-1]], [GOOD]) as counts:
        assert code_of() == "ok"
    assert counts == [1, 1]


def test_a_connection_that_the_endpoint_ends_is_not_used_again(environment: pytest.MonkeyPatch) -> None:
    last = GOOD.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
    with peer(environment, [last, GOOD], [GOOD]) as counts:
        assert [code_of(), code_of()] == ["ok", "ok"]
    assert counts == [1, 1]


def test_a_connection_that_was_silent_for_long_is_replaced_unasked(endpoint: Endpoint) -> None:
    code_of()
    logic.runtime().last_used = time.monotonic() - 20
    code_of()
    logic.runtime().last_used = time.monotonic() - 31
    code_of()
    first, second, third = endpoint.peers
    assert first == second != third


def test_an_endpoint_that_drips_is_left_at_the_deadline(environment: pytest.MonkeyPatch) -> None:
    with peer(environment, [GOOD * 100], pause=0.05):
        assert code_of(seconds=1.0) == "endpoint_unavailable"


def test_what_is_no_http_is_an_endpoint_that_cannot_be_reached(
    environment: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    with peer(environment, *[[b"220 mail.example ESMTP\r\n"]] * 4) as counts:
        assert code_of() == "endpoint_unavailable"
    assert counts == [1] * 4


def test_a_name_that_hangs_is_an_endpoint_that_cannot_be_reached(environment: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    environment.setenv("AWS_ENDPOINT_URL", "http://nowhere.invalid")
    environment.setattr("socket.getaddrinfo", lambda *_: over.wait(60) and [])
    assert code_of(seconds=0.8) == "endpoint_unavailable"
    over.set()


def test_a_name_that_is_unknown_is_an_endpoint_that_cannot_be_reached(
    environment: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    def unknown(*_: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    environment.setenv("AWS_ENDPOINT_URL", "http://nowhere.invalid")
    environment.setattr("socket.getaddrinfo", unknown)
    assert code_of() == "endpoint_unavailable"
    assert pauses == [0.1, 0.2, 0.4]
