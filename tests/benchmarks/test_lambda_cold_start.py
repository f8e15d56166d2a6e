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


def test_compiled_files_are_used_whatever_time_the_sources_have(asset: Path, tmp_path: Path) -> None:
    compiled = lambda_sandboxes.compiled(asset, tmp_path / "compiled")
    assert lambda_sandboxes.is_compiled(compiled)
    (compiled / "classify" / "handler.py").write_text("raise SystemExit('the source was read')")
    code = "from classify.handler import handler; print(handler('cat', None)['label'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=compiled, capture_output=True, text=True, check=True)
    assert done.stdout == "cat\n"


def test_a_copy_of_sources_has_no_compiled_files_and_is_smaller(asset: Path, tmp_path: Path) -> None:
    compiled = lambda_sandboxes.compiled(asset, tmp_path / "compiled")
    source = lambda_sandboxes.source_only(compiled, tmp_path / "source")
    assert not lambda_sandboxes.is_compiled(source)
    assert 0 < lambda_sandboxes.kilobytes(source) < lambda_sandboxes.kilobytes(compiled)


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


def cold(**deployed: bool) -> dict[str, Any]:
    times = {"does nothing": 30.0, "boto3 client": 200.0, "boto3 client and call": 250.0}
    times |= {"Kennel, compiled": 100.0, "Kennel, source only": 150.0}
    clock = {"begun": 1.03, "imported": 1.07, "called": 1.08, "client": 0.01, "answered": 1.11}
    figures: dict[str, Any] = {"machine": "a machine", "endpoint_ms": 0.1, "direct_ms": 0.2, "warm_overhead_ms": 1.5}
    figures["cold_ms"] = {name: [value, value + 2, value + 1] for name, value in times.items()}
    figures["parts_ms"] = [lambda_cold_start.parts(1.0, clock, 1.115)]
    figures["kilobytes"] = {"Kennel, compiled": 64.0, "Kennel, source only": 19.0}
    figures["warm"] = {"does nothing": {"answer_ms": 0.5, "beyond_endpoint_ms": None, "beyond_direct_ms": None}}
    return figures | {"deployed_compiled": True} | deployed


def test_the_parts_of_a_cold_start_are_the_whole() -> None:
    [found] = cold()["parts_ms"]
    assert tuple(found) == lambda_cold_start.PARTS
    assert found == pytest.approx(
        {"start": 30, "import": 40, "runtime": 10, "client": 10, "first request": 20, "answer": 5}
    )


@pytest.mark.parametrize(("compiled", "ratio"), [(True, 101 / 201), (False, 151 / 201)])
def test_the_cold_ratio_is_of_medians_and_of_the_package_as_deployed(compiled: bool, ratio: float) -> None:
    found = lambda_cold_start.summary(cold(deployed_compiled=compiled))
    assert found["cold_ratio"] == pytest.approx(ratio)
    assert found["cold_ratio_calling"] == pytest.approx(ratio * 201 / 251)
    assert (found["cold_ratio_compiled"], found["package_kb"]) == (pytest.approx(101 / 201), 64.0)


def test_each_answer_is_compared_with_its_own_call_of_the_endpoint() -> None:
    assert lambda_cold_start.overhead([5.0, 2.0, 9.0], [4.0, 0.5, 7.0]) == 1.5
    with pytest.raises(ValueError, match=r"shorter|longer"):
        lambda_cold_start.overhead([5.0, 2.0], [4.0])
