"""Bounded room and bounded time: the real application over loopback around a classifier that waits when it is told."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from inference import app
from inference.settings import Settings
from tests.inference.tiny import Answer, answer_on, ask, until, upload

_SETTINGS = Settings(Path(), "127.0.0.1", 0, 1000, 1000, "")


class Patient:
    """Answers when `go` is set."""

    classes = ("a", "b")
    threshold = None
    healthy = True

    def __init__(self) -> None:
        self.go = threading.Event()

    def classify(self, body: bytes) -> list[float]:
        assert self.go.wait(30)
        return [0.25, 0.75]


@contextmanager
def served(classifier: Patient) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app.build(classifier, _SETTINGS), log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        classifier.go.set()
        server.should_exit = True
        thread.join()


@pytest.fixture
def patient() -> Iterator[tuple[Patient, int]]:
    classifier = Patient()
    with served(classifier) as port:
        yield classifier, port


def first(answers: list[Future[Answer]], count: int) -> list[Answer]:
    """The answers that are there once `count` of them are."""
    until(lambda: sum(answer.done() for answer in answers) >= count)
    return [answer.result() for answer in answers if answer.done()]


def test_beyond_the_queue_callers_are_told_to_come_back_and_the_others_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "_WORKERS", 2)
    monkeypatch.setattr(app, "_QUEUED", 3)
    classifier = Patient()
    with served(classifier) as port, ThreadPoolExecutor(9) as callers:
        answers = [callers.submit(ask, port, "POST", "/invocations", b"x") for _ in range(9)]
        refused = first(answers, 4)
        assert ask(port, "GET", "/ping").status == 200
        classifier.go.set()
        statuses = sorted(answer.result().status for answer in answers)
    assert [(answer.code, answer.headers["retry-after"]) for answer in refused] == [("busy", "1")] * 4
    assert statuses == [200] * 5 + [503] * 4


def test_a_place_in_the_queue_is_free_again_after_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_WORKERS", 1)
    monkeypatch.setattr(app, "_QUEUED", 0)
    classifier = Patient()
    classifier.go.set()
    with served(classifier) as port:
        assert [ask(port, "POST", "/invocations", b"x").status for _ in range(3)] == [200] * 3


def test_more_uploads_at_a_time_than_memory_is_meant_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_UPLOADS", 1)
    classifier = Patient()
    classifier.go.set()
    with served(classifier) as port:
        with upload(port, b"abc", 1):
            until(lambda: ask(port, "POST", "/invocations", b"x").status == 503)
        until(lambda: ask(port, "POST", "/invocations", b"x").status == 200)


def test_a_body_that_does_not_arrive_in_time_is_408_and_the_connection_ends(
    monkeypatch: pytest.MonkeyPatch, patient: tuple[Patient, int]
) -> None:
    monkeypatch.setattr(app, "_READ_SECONDS", 0.2)
    with upload(patient[1], b"abc", 1) as connection:
        answer = answer_on(connection)
        assert (answer.status, answer.code) == (408, "request_timeout")
        connection.settimeout(2)  # well before an idle connection is closed
        assert connection.recv(1) == b""


def test_an_answer_that_takes_too_long_is_503(monkeypatch: pytest.MonkeyPatch, patient: tuple[Patient, int]) -> None:
    monkeypatch.setattr(app, "_WORK_SECONDS", 0.2)
    answer = ask(patient[1], "POST", "/invocations", b"x")
    assert (answer.status, answer.code) == (503, "busy")
    assert answer.headers["retry-after"] == "10"


def test_reading_and_working_fit_into_the_minute_that_sagemaker_waits() -> None:
    assert app._READ_SECONDS + app._WORK_SECONDS < 60


def test_an_unhealthy_classifier_fails_the_ping(patient: tuple[Patient, int]) -> None:
    patient[0].healthy = False
    assert ask(patient[1], "GET", "/ping").status == 503
