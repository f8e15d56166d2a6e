"""Counts and times reach CloudWatch by the log."""

import json
from collections.abc import Callable

import pytest

from inference import telemetry
from inference.telemetry import Metrics, Timings, sample
from tests.inference.tiny import Server, picture, until


def test_a_server_counts_and_times_its_requests_and_writes_them_at_its_end(launch: Callable[..., Server]) -> None:
    server = launch(ENDPOINT_NAME="kennel-dev")
    server.ask("GET", "/ping")
    for body in (picture(), picture("PNG"), b"none"):
        server.classify(body)
    server.ask("GET", "/elsewhere")
    last = server.stop()[1][-1]
    assert [last[name] for name in ("Requests", "ClientErrors", "ServerErrors", "Busy")] == [3, 1, 0, 0]
    assert [len(last[name]) for name in ("QueueMs", "DecodeMs", "ModelMs")] == [2, 2, 2]
    assert min(last["DecodeMs"] + last["ModelMs"]) > 0
    (directive,) = last["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == ("Kennel/Server", [["Endpoint"]])
    assert last["Endpoint"] == "kennel-dev"
    units = {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}
    assert units == dict.fromkeys(("Requests", "ClientErrors", "ServerErrors", "Busy"), "Count") | dict.fromkeys(
        ("QueueMs", "DecodeMs", "ModelMs"), "Milliseconds"
    )
    assert 1.7e12 < last["_aws"]["Timestamp"] < 1e13


def test_a_releases_own_photos_are_in_no_metric(launch: Callable[..., Server]) -> None:
    server = launch()
    server.classify(picture())
    for body in (picture(), b"none"):
        server.classify(body, X_Amzn_SageMaker_Custom_Attributes="kennel-probe")
    log = server.stop()[1]
    assert [log[-1][name] for name in ("Requests", "ClientErrors")] == [1, 0]
    assert len(log[-1]["ModelMs"]) == 1
    assert sum(line["event"] == "request" for line in log) == 3


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    monkeypatch.setattr("inference.telemetry.event", lambda name, **facts: lines.append(facts))
    return lines


def test_each_line_holds_what_came_since_the_one_before(written: list[dict[str, object]]) -> None:
    found = Metrics("")
    for status in (200, 200, 404, 429, 504, 500):
        found.count(status)
    found.note(Timings(1, 2, 3))
    found.write()
    found.write()
    counts = [[line[name] for name in ("Requests", "ClientErrors", "ServerErrors", "Busy")] for line in written]
    assert counts == [[6, 1, 2, 1], [0, 0, 0, 0]]
    assert [written[0][name] for name in ("QueueMs", "DecodeMs", "ModelMs")] == [[1], [2], [3]]
    assert "QueueMs" not in json.dumps(written[1])
    assert '"Dimensions": [[]]' in json.dumps(written[1])


def test_a_line_comes_once_a_period_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch, written: list[dict[str, object]]
) -> None:
    monkeypatch.setattr(telemetry, "_EVERY", 0.05)
    found = Metrics("")
    stop = found.start()
    found.count(200)
    until(lambda: len(written) >= 2)
    stop()
    count = len(written)
    assert written[0]["Requests"] == 1
    assert count >= 3


def test_a_line_takes_a_hundred_values_least_and_greatest_among_them() -> None:
    assert sample([3.0, 1.0, 2.00049]) == [1, 2, 3]
    found = sample([float(value) for value in range(100_000, 0, -1)])
    assert (len(found), found[0], found[-1]) == (100, 1, 100_000)
    assert found == sorted(found)
    assert len(sample([1.0] * 101)) == 100
