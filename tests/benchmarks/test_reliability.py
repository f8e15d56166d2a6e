"""The parts of the reliability benchmark: its faults are as AWS's own, and no wrong answer passes."""

import http.client
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import numpy as np
import pytest
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from benchmarks.lib.fault_proxy import FaultProxy, Mix
from benchmarks.lib.stack_under_load import CLASSES, Picture, pictures
from benchmarks.reliability import Reply, Request, outcome_of, summary, until_answered

GOOD, *_, BROKEN = pictures(4)


class _Target(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_POST(self) -> None:
        self.send_response(424)
        self.send_header("x-amzn-ErrorType", "ModelError")
        self.end_headers()
        self.wfile.write(self.rfile.read(int(self.headers["Content-Length"])))


@contextmanager
def proxy(mix: Mix) -> Iterator[FaultProxy]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Target) as target:
        thread = threading.Thread(target=target.serve_forever, args=(0.02,))
        thread.start()
        with FaultProxy(("127.0.0.1", target.server_address[1]), mix) as made:
            yield made
        target.shutdown()
        thread.join()


def post(url: str) -> tuple[int, str | None, bytes]:
    """Status, x-amzn-ErrorType and body; what breaks the connection is raised."""
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)) as connection:
        connection.request("POST", "/endpoints/e/invocations", b"picture")
        with connection.getresponse() as answer:
            return answer.status, answer.headers["x-amzn-ErrorType"], answer.read()


def test_what_is_not_broken_passes_as_it_is() -> None:
    with proxy(Mix(0, 0, 0, 0)) as clear:
        assert post(clear.url) == (424, "ModelError", b"picture")
        assert clear.counts == {"passed": 1}


def test_boto3_reads_a_throttle_as_a_throttling_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with proxy(Mix(1, 0, 0, 0)) as closed:
        once = Config(retries={"total_max_attempts": 1})
        client = boto3.client("sagemaker-runtime", endpoint_url=closed.url, region_name="us-east-1", config=once)
        with pytest.raises(ClientError) as raised:
            client.invoke_endpoint(EndpointName="e", Body=b"x")
        client.close()
    assert raised.value.response["Error"] == {"Message": "Rate exceeded", "Code": "ThrottlingException"}
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_a_reset_comes_before_after_or_within_the_answer() -> None:
    with proxy(Mix(0, 1, 0, 0)) as broken:
        while len(broken.counts) < 3:
            with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
                post(broken.url)
        assert set(broken.counts) == {"reset_before", "reset_after", "reset_within"}


def test_faults_come_as_often_as_asked_for() -> None:
    made = FaultProxy(("127.0.0.1", 1), Mix(throttled=0.05, reset=0.01))
    drawn = Counter(made.draw()[0] for _ in range(20_000))
    assert drawn["throttled"] == pytest.approx(1000, rel=0.2)
    assert sum(count for fault, count in drawn.items() if fault.startswith("reset")) == pytest.approx(200, rel=0.4)
    made.close()


def right(picture: Picture = GOOD) -> dict[str, Any]:
    assert picture.probabilities is not None
    best = CLASSES[int(picture.probabilities.argmax())]
    return {"probabilities": [*picture.probabilities], "label": best, "predictions": [{"label": best}]}


def error(code: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": "..."}}


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply(200, right()), "right"),
        (Reply(200, right(pictures(4)[1])), "wrong"),
        (Reply(200, right() | {"label": None}), "wrong"),
        (Reply(200, right() | {"predictions": [{"label": "?"}]}), "wrong"),
        (Reply(200, {}), "wrong"),
        (Reply(503, error("endpoint_throttled")), "endpoint_throttled"),
        (Reply(500, error("endpoint_throttled")), "wrong"),
        (Reply(400, error("not_an_image")), "wrong"),
        (Reply(503, error("unheard_of")), "wrong"),
        (Reply(0, "ConnectionResetError()"), "lost"),
    ],
)
def test_only_the_right_answer_and_documented_errors_are_let_through(reply: Reply, outcome: str) -> None:
    assert outcome_of(reply, GOOD) == outcome


def test_a_broken_picture_must_be_refused() -> None:
    assert outcome_of(Reply(400, error("not_an_image")), BROKEN) == "right"
    assert outcome_of(Reply(200, right()), BROKEN) == "wrong"


def test_the_truth_of_each_picture_is_its_own() -> None:
    known = [picture.probabilities for picture in pictures(12)[:-1] if picture.probabilities is not None]
    assert len(known) == 11
    apart = [np.abs(one - other).max() for place, one in enumerate(known) for other in known[:place]]
    assert min(apart) > 0.05


def test_a_caller_comes_back_when_told_and_not_before() -> None:
    replies = iter([Reply(503, error("endpoint_throttled"), retry_after=0.3), Reply(200, right())])
    requests, _ = until_answered(lambda picture, http: next(replies), GOOD, True, random.Random(0))
    assert [one.outcome for one in requests] == ["endpoint_throttled", "right"]
    assert requests[1].begun - requests[0].ended >= 0.3


def test_a_lost_request_is_not_asked_again() -> None:
    requests, took = until_answered(lambda picture, http: Reply(0, "gone"), GOOD, False, random.Random(0))
    assert ([one.outcome for one in requests], took) == (["lost"], None)


def test_each_test_that_the_page_names_exists() -> None:
    root = Path(__file__).parents[2]
    named = set(
        re.findall(r"`(?:rehearsal/|tests/rehearsal/)?(test_\w+\.py)`", (root / "docs/reliability.md").read_text())
    )
    assert len(named) > 8
    assert named <= {file.name for file in (root / "tests").rglob("test_*.py")}


def test_the_figures_count_each_outcome_and_time_the_recovery() -> None:
    asked = [
        Request(0.0, 0.5, "right", ""),
        Request(1.0, 2.5, "endpoint_unavailable", "..."),
        Request(1.9, 4.0, "right", ""),
        Request(2.1, 4.4, "right", ""),
        Request(3.0, 3.1, "lost", "gone"),
    ]
    found: list[tuple[list[Request], float | None]] = [(asked[:1], 0.5), (asked[1:4], 3.4), (asked[4:], None)]
    figures = summary(found, 1.0, [(2.0, 2), (3.5, 1)], Counter(passed=4))
    assert (figures["requests"], figures["right"], figures["lost"], figures["wrong"]) == (5, 3, 1, 0)
    assert figures["errors"] == {"endpoint_unavailable": 1}
    assert (figures["retries"], figures["never_answered"], figures["told"]) == (2, 1, ["gone"])
    assert figures["answer_p50"] == pytest.approx(2.1)  # of the two that came once all callers were there
    assert [one["recovered"] for one in figures["kills"]] == [pytest.approx(2.4), None]
