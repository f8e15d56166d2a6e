"""What the cold-start benchmark runs, as Lambda would unpack it, and what follows from its figures."""

import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import lambda_cold_start
from benchmarks.lib import lambda_sandboxes


@pytest.fixture
def asset(tmp_path: Path) -> Path:
    package = tmp_path / "asset" / "classify"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "handler.py").write_text("def handler(event, context):\n    return {'label': event}\n")
    return package.parent


def test_the_measured_function_answers_as_before_and_tells_its_times_in_order(asset: Path, tmp_path: Path) -> None:
    measured = lambda_sandboxes.measured(asset, tmp_path / "measured")
    code = "import json, measured; print(json.dumps(measured.handler('cat', None)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=measured, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    clock = answer.pop("clock")
    assert answer == {"label": "cat"}
    assert clock["client"] == 0
    assert clock["begun"] <= clock["imported"] <= clock["called"] <= clock["answered"]


def test_the_stub_endpoint_wants_a_signature_and_tells_how_long_each_call_took() -> None:
    with lambda_sandboxes.stub_endpoint() as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b, Signature=c", "X-Amz-Date": "d"}
        answers = []
        for headers in ({"X-Amz-Date": "d"}, signed):
            connection.request("POST", "/endpoints/kennel-dev/invocations", b"picture", headers)
            response = connection.getresponse()
            answers.append((response.status, json.loads(response.read())))
        connection.request("GET", "/times")
        [milliseconds] = json.loads(connection.getresponse().read())
        connection.close()
    assert [status for status, _ in answers] == [403, 200]
    assert len(answers[1][1]["classes"]) == 133
    assert sum(answers[1][1]["probabilities"]) == pytest.approx(1)
    assert 0 < milliseconds < 1000


def cold() -> dict[str, Any]:
    times = {"does nothing": 30.0, "boto3 client": 200.0, "boto3 client and call": 250.0, "Kennel": 100.0}
    clock = {"begun": 1.03, "imported": 1.07, "called": 1.08, "client": 0.01, "answered": 1.11}
    return {
        "cold_ms": {name: [value, value + 2, value + 1] for name, value in times.items()},
        "parts_ms": [lambda_cold_start.parts(1.0, clock, 1.115)],
        "warm": {"Kennel": {"answer_ms": 2.0, "beyond_endpoint_ms": 1.5}},
    }


def test_the_parts_of_a_cold_start_are_the_whole() -> None:
    [found] = cold()["parts_ms"]
    assert tuple(found) == lambda_cold_start.PARTS
    assert found == pytest.approx(
        {"start": 30, "import": 40, "runtime": 10, "client": 10, "first request": 20, "answer": 5}
    )


def test_the_cold_ratios_are_of_medians() -> None:
    found = lambda_cold_start.summary(cold())
    assert found["cold_ratio"] == pytest.approx(101 / 201)
    assert found["cold_ratio_calling"] == pytest.approx(101 / 251)
    assert found["warm_overhead_ms"] == 1.5


def test_each_answer_is_compared_with_its_own_call_of_the_endpoint() -> None:
    assert lambda_cold_start.overhead([5.0, 2.0, 9.0], [4.0, 0.5, 7.0]) == 1.5
    with pytest.raises(ValueError, match=r"shorter|longer"):
        lambda_cold_start.overhead([5.0, 2.0], [4.0])
