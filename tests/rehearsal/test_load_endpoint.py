"""The rehearsal's endpoint around the real server: it comes back, or says why it cannot."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import urllib3

from benchmarks.lib.stack_under_load import Picture, pictures, servers, write_artifact
from kennel.rehearsal.containers.local import free_port, pick_engine
from kennel.rehearsal.interfaces import Deployment, EndpointAnswer, EndpointCall
from kennel.rehearsal.serving.endpoints import EndpointError, Fleet

pytestmark = pytest.mark.long

PICTURE = pictures(2)[0]


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """Its parameter: how long an answer may take, in seconds."""
    longest = getattr(request, "param", 60.0)
    deployment = Deployment("kennel-dev", "config", "inference", "", "", {}, 1, answer_seconds=longest)
    made = Fleet(pick_engine(), deployment, tmp_path / "fleet")
    write_artifact(made.roots[0] / "model")
    yield made
    made.close()


def ask(fleet: Fleet) -> EndpointAnswer:
    return fleet.invoke(EndpointCall("kennel-dev", PICTURE.body, {"Content-Type": "image/jpeg"}))


def is_right(answer: EndpointAnswer, picture: Picture = PICTURE) -> bool:
    said = json.loads(answer.body)
    best = max(zip(said["probabilities"], said["classes"], strict=True))[1]
    return picture.fits({**said, "label": best, "predictions": [{"label": best}]})


def only_server() -> psutil.Process:
    [process] = servers()
    return process


def test_a_killed_server_comes_back_and_every_request_meanwhile_has_a_status(fleet: Fleet) -> None:
    fleet.start()
    ended, answers = threading.Event(), list[EndpointAnswer]()

    def call() -> None:
        while not ended.is_set():
            answers.append(ask(fleet))

    with ThreadPoolExecutor(4) as callers:
        calls = [callers.submit(call) for _ in range(4)]
        for _ in range(3):
            only_server().kill()
            before = len(answers)
            while not any(answer.status == 200 for answer in answers[before + 8 :]):
                assert not any(one.done() for one in calls)
                ended.wait(0.05)
        ended.set()
        for one in calls:
            one.result()
    assert {answer.status for answer in answers} == {200, 503}
    assert all(is_right(answer) for answer in answers if answer.status == 200)
    told = {answer.body.split(b":")[0] for answer in answers if answer.status == 503}
    assert told == {b"The container primary did not answer"}


def test_a_connection_that_is_refused_is_no_answer_and_no_timeout(fleet: Fleet) -> None:
    fleet.start()
    fleet._servers[0]._pool = urllib3.HTTPConnectionPool("127.0.0.1", free_port(), retries=False)
    answer = ask(fleet)
    assert (answer.status, answer.body.split(b":")[0]) == (503, b"The container primary did not answer")


def test_a_server_that_cannot_come_back_says_why_until_it_can(fleet: Fleet) -> None:
    fleet.start()
    model = fleet.roots[0] / "model"
    kept = (model / "model.json").read_bytes()
    (model / "model.json").unlink()
    only_server().kill()
    told = [ask(fleet) for _ in range(2)][-1]
    assert told.status == 503
    assert b"ended before it passed the ping health check" in told.body
    assert b"model.json is missing" in told.body
    (model / "model.json").write_bytes(kept)
    assert is_right(ask(fleet))


@pytest.mark.parametrize("name", ["model.json", "model.xml", "model.bin"])
def test_a_corrupt_artifact_never_serves_and_the_reason_names_the_file(fleet: Fleet, name: str) -> None:
    file = fleet.roots[0] / "model" / name
    content = file.read_bytes()
    file.write_bytes(os.urandom(len(content) // 2))
    with pytest.raises(EndpointError, match=r"(?s)ended before it passed the ping health check.*inference: .*model\."):
        fleet.start()


@pytest.mark.parametrize("fleet", [1.0], indirect=True)
def test_a_server_that_hangs_is_answered_for_and_the_next_request_is_served(fleet: Fleet) -> None:
    fleet.start()
    process = only_server()
    process.send_signal(signal.SIGSTOP)
    hung = ask(fleet)
    process.send_signal(signal.SIGCONT)
    assert (hung.status, hung.body[:26]) == (504, b"Your invocation timed out ")
    assert is_right(ask(fleet))
