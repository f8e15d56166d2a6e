"""The connection to SageMaker's runtime: kept, taken up anew when it was lost, bounded."""

import socket
import ssl
import threading
import time

import pytest
from classify import sagemaker_runtime as module
from classify import timed_socket as wire
from classify.handler import handler

from tests.functions.peers import peer
from tests.functions.worlds import PICTURE, Context, Reply, Runtime, probabilities

GOOD = b'HTTP/1.1 200 OK\r\nContent-Length: 46\r\n\r\n{"probabilities":[1.0],"classes":["a"]}       '


def code_of(seconds: float = 20.0) -> str:
    value = handler(PICTURE, Context(seconds))
    return str(value.get("error", {"code": "ok"})["code"])


def test_one_connection_serves_all_calls_of_a_sandbox(runtime: Runtime) -> None:
    assert [code_of() for _ in range(3)] == ["ok"] * 3
    assert len(runtime.peers) == 3
    assert len(set(runtime.peers)) == 1


def test_each_call_over_a_kept_connection_has_its_own_deadline(runtime: Runtime) -> None:
    assert code_of(1.0) == "ok"
    time.sleep(0.6)  # past the first one's, whose answer must be written half a second early
    assert code_of() == "ok"
    assert len(set(runtime.peers)) == 1


def test_an_error_answer_costs_no_connection(runtime: Runtime, pauses: list[float]) -> None:
    runtime.replies = [Reply(429, {}, "ThrottlingException"), probabilities(1.0)]
    assert code_of() == "ok"
    assert len(set(runtime.peers)) == 1


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_at_once(
    environment: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    with peer(environment, [GOOD], [GOOD]) as counts:
        assert [code_of(), code_of()] == ["ok", "ok"]
    assert counts == [1, 1]
    assert pauses == []


def test_a_reset_in_place_of_an_answer_on_a_kept_connection_is_made_good_at_once(
    environment: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    with peer(environment, [GOOD, b""], [GOOD]) as counts:
        assert [code_of(), code_of()] == ["ok", "ok"]
    assert counts == [2, 1]
    assert pauses == []


def test_a_new_connection_that_breaks_is_not_tried_at_once_but_after_a_pause(
    environment: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    with peer(environment, [b""], [GOOD]) as counts:
        assert code_of() == "ok"
    assert counts == [1, 1]
    assert pauses == [0.1]


def test_an_address_that_does_not_answer_is_dialled_again_after_a_pause(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    seconds: list[float] = []
    real = socket.create_connection

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        seconds.append(timeout)
        if len(seconds) == 1:
            raise TimeoutError
        return real(address, timeout)

    monkeypatch.setattr("socket.create_connection", connect)
    assert code_of() == "ok"
    assert (seconds, pauses) == ([2.0, 2.0], [0.1])


def test_an_answer_that_breaks_off_is_asked_for_again_over_a_new_connection(
    environment: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    with peer(environment, [GOOD[:-1]], [GOOD]) as counts:
        assert code_of() == "ok"
    assert counts == [1, 1]
    assert pauses == [0.1]


def test_a_connection_that_the_service_ends_is_not_used_again(
    environment: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    last = GOOD.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
    with peer(environment, [last, GOOD], [GOOD]) as counts:
        assert code_of() == "ok"
        assert module.Runtime.of_environment()._wire is None
    assert counts == [1]


def test_a_connection_that_was_silent_for_long_is_replaced_unasked(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    code_of()
    module.Runtime.of_environment()._used -= 29
    code_of()
    module.Runtime.of_environment()._used -= 31
    code_of()
    first, second, third = runtime.peers
    assert first == second != third


def test_an_endpoint_that_drips_is_left_at_the_deadline(environment: pytest.MonkeyPatch) -> None:
    with peer(environment, [GOOD], pause=0.05):
        started = time.monotonic()
        assert code_of(0.9) == "endpoint_unavailable"
        assert time.monotonic() - started < 0.9


def test_what_is_no_http_is_an_endpoint_that_cannot_be_reached(
    environment: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    with peer(environment, *[[b"220 mail.example ESMTP\r\n"]] * 4) as counts:
        assert code_of() == "endpoint_unavailable"
    assert counts == [1] * 4


def test_a_name_that_is_unknown_or_hangs_is_an_endpoint_that_cannot_be_reached(
    environment: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    environment.setenv("AWS_ENDPOINT_URL", "http://nowhere.invalid")
    over = threading.Event()
    environment.setattr("socket.getaddrinfo", lambda *_: over.wait(20) and [])
    started = time.monotonic()
    assert code_of(0.8) == "endpoint_unavailable"
    assert time.monotonic() - started < 0.8
    over.set()


@pytest.mark.parametrize("error", [ConnectionResetError, BrokenPipeError, ssl.SSLEOFError])
def test_however_a_kept_connection_says_that_it_is_gone_it_is_replaced(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, pauses: list[float], error: type[OSError]
) -> None:
    code_of()

    def sendall(*_: object) -> None:
        broken.undo()  # the next connection works
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(wire.Wire, "sendall", sendall)
        assert code_of() == "ok"
    assert pauses == []
    assert len(set(runtime.peers)) == 2
