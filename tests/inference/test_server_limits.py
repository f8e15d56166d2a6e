"""Bounded queues and bounded time: the real application over loopback around a classifier that waits on demand."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import pytest
import uvicorn

from inference import admission, app
from inference.admission import WorkQueue
from inference.classifier import Answer as OfPicture
from inference.telemetry import Metrics, Timings
from tests.inference.tiny import Answer, answer_on, ask, until, upload


class Patient:
    """Answers when `go` is set."""

    classes = ("a", "b")
    threshold = None
    healthy = True

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun: list[bytes] = []

    def classify(self, body: bytes, timings: Timings) -> OfPicture:
        self.begun.append(body)
        assert self.go.wait(60)
        return OfPicture([0.25, 0.75], None)


@contextmanager
def served(patient: Patient, workers: int = 2) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    built = app.build(cast(Any, patient), workers=workers, metrics=Metrics(""), max_bytes=1000)
    server = uvicorn.Server(uvicorn.Config(built, log_config=None, lifespan="off", timeout_keep_alive=75))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        patient.go.set()
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
    monkeypatch.setattr(admission, "_WAITING", 2)
    classifier = Patient()
    with served(classifier) as port, ThreadPoolExecutor(9) as callers:
        answers = [callers.submit(ask, port, "POST", "/invocations", b"x") for _ in range(9)]
        refused = first(answers, 3)
        assert ask(port, "GET", "/ping").status == 200
        classifier.go.set()
        statuses = sorted(answer.result().status for answer in answers)
    assert [(answer.code, answer.headers["retry-after"]) for answer in refused] == [("busy", "1")] * 3
    assert [answer.json["error"]["retry_after"] for answer in refused] == [1] * 3
    assert statuses == [200] * 6 + [429] * 3


def test_a_place_in_the_queue_is_free_again_after_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_WAITING", 0)
    classifier = Patient()
    classifier.go.set()
    with served(classifier, workers=1) as port:
        assert [ask(port, "POST", "/invocations", b"x").status for _ in range(3)] == [200] * 3


def test_more_uploads_at_a_time_than_memory_is_meant_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_UPLOADS", 1)
    classifier = Patient()
    classifier.go.set()
    with served(classifier) as port:
        with upload(port, b"abc", 1):
            until(lambda: ask(port, "POST", "/invocations", b"x").status == 429)
        until(lambda: ask(port, "POST", "/invocations", b"x").status == 200)


def test_a_body_that_does_not_arrive_in_time_is_408_and_the_connection_ends(
    monkeypatch: pytest.MonkeyPatch, patient: tuple[Patient, int]
) -> None:
    monkeypatch.setattr(app, "_READ_SECONDS", 0.2)
    with upload(patient[1], b"abc", 1) as connection:
        answer = answer_on(connection)
        assert (answer.status, answer.code) == (408, "request_timeout")
        connection.settimeout(60)  # before an idle connection is closed
        assert connection.recv(1) == b""


def test_an_answer_that_takes_too_long_is_504(monkeypatch: pytest.MonkeyPatch, patient: tuple[Patient, int]) -> None:
    monkeypatch.setattr(app, "_WORK_SECONDS", 0.2)
    answer = ask(patient[1], "POST", "/invocations", b"x")
    assert (answer.status, answer.code) == (504, "deadline_exceeded")


@pytest.fixture
def queues(monkeypatch: pytest.MonkeyPatch) -> list[WorkQueue]:
    """The queues of the applications that the test builds."""
    built: list[WorkQueue] = []

    def recorded(workers: int, seconds: float) -> WorkQueue:
        built.append(WorkQueue(workers, seconds))
        return built[-1]

    monkeypatch.setattr(app, "WorkQueue", recorded)
    return built


def test_what_nobody_waits_for_any_more_is_never_begun(
    monkeypatch: pytest.MonkeyPatch, queues: list[WorkQueue]
) -> None:
    classifier = Patient()
    with served(classifier, workers=1) as port, ThreadPoolExecutor(2) as callers:
        first = callers.submit(ask, port, "POST", "/invocations", b"first")
        until(lambda: classifier.begun == [b"first"])
        with upload(port, b"gone", 4):
            until(lambda: queues[0]._inside == 2)
        monkeypatch.setattr(app, "_WORK_SECONDS", 0.2)  # of requests from now on
        assert ask(port, "POST", "/invocations", b"late").status == 504
        monkeypatch.setattr(app, "_WORK_SECONDS", 60.0)
        until(lambda: queues[0]._inside == 1)
        classifier.go.set()
        assert first.result().status == 200
        assert ask(port, "POST", "/invocations", b"last").status == 200
    assert classifier.begun == [b"first", b"last"]


def test_callers_are_served_in_the_order_in_which_they_came(queues: list[WorkQueue]) -> None:
    classifier = Patient()
    with served(classifier, workers=1) as port, ThreadPoolExecutor(8) as callers:
        answers = []
        for place in range(8):
            answers.append(callers.submit(ask, port, "POST", "/invocations", bytes([place])))
            until(lambda queued=place + 1: queues[0]._inside == queued)  # type: ignore[misc]
        classifier.go.set()
        assert [answer.result().status for answer in answers] == [200] * 8
    assert classifier.begun == [bytes([place]) for place in range(8)]


def test_reading_and_working_fit_into_the_minute_that_sagemaker_waits() -> None:
    assert app._READ_SECONDS + app._WORK_SECONDS < 60


def test_an_unhealthy_classifier_fails_the_ping(patient: tuple[Patient, int]) -> None:
    patient[0].healthy = False
    assert ask(patient[1], "GET", "/ping").status == 503
