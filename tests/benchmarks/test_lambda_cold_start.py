"""What the cold-start benchmark runs, as Lambda would unpack it, and what follows from its figures."""

import http.client
import json
from typing import Any

import pytest

from benchmarks import lambda_cold_start


def test_the_stub_endpoint_wants_a_signature_and_tells_how_long_each_call_took() -> None:
    with lambda_cold_start.StubEndpoint() as stub:
        connection = http.client.HTTPConnection("127.0.0.1", stub.server_address[1], timeout=60)
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b, Signature=c", "X-Amz-Date": "d"}
        answers = []
        for headers in ({"X-Amz-Date": "d"}, signed):
            connection.request("POST", "/endpoints/kennel-dev/invocations", b"picture", headers)
            response = connection.getresponse()
            answers.append((response.status, json.loads(response.read())))
        [milliseconds] = stub.take_times()
        connection.close()
    assert [status for status, _ in answers] == [403, 200]
    assert len(answers[1][1]["classes"]) == 133
    assert sum(answers[1][1]["probabilities"]) == pytest.approx(1)
    assert 0 < milliseconds < 1000


def cold() -> dict[str, Any]:
    times = {"does nothing": 30.0, "boto3 client": 200.0, "boto3 client and call": 250.0, "Kennel": 100.0}
    return {
        "cold_ms": {name: [value, value + 2, value + 1] for name, value in times.items()},
        "warm": {"Kennel": {"answer_ms": 2.0, "beyond_endpoint_ms": 1.5}},
    }


def test_the_cold_ratios_are_of_medians() -> None:
    found = lambda_cold_start.summary(cold())
    assert found["cold_ratio"] == pytest.approx(101 / 201)
    assert found["cold_ratio_calling"] == pytest.approx(101 / 251)
    assert found["warm_overhead_ms"] == 1.5


def test_each_answer_is_compared_with_its_own_call_of_the_endpoint() -> None:
    assert lambda_cold_start.overhead([5.0, 2.0, 9.0], [4.0, 0.5, 7.0]) == 1.5
    with pytest.raises(ValueError, match=r"shorter|longer"):
        lambda_cold_start.overhead([5.0, 2.0], [4.0])
