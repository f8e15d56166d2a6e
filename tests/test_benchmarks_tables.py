"""What the benchmarks of serving and of cold starts conclude from their figures, and how wide they print it."""

import copy
from typing import Any

import pytest

from benchmarks.lib import lambda_table, serving_table


def load(rate: float, p50: float = 10.0, p99: float = 20.0) -> dict[str, Any]:
    times = {"p50_ms": p50, "p95_ms": p99, "p99_ms": p99, "memory_mib": 150.0, "server_cpu": 0.9, "load_cpu": 0.04}
    return {"rate": rate, "errors": 0, "wrong": 0, "agreement": 1.0, **times}


def server(rate: float, *, first: float = 0.5, bound: float | None = None, p99: float = 20.0) -> dict[str, Any]:
    loads = {str(connections): load(rate, p99=p99) for connections in serving_table.CONNECTIONS}
    parts = {"total": 10.0, "decode": 3.0, "resize": 2.0, "model": 5.0}
    limit = {"bound": {"rate": bound, "busy_rate": bound, "milliseconds": parts}} if bound else {}
    return {"first_answer_seconds": first, "installed_mb": 150.0, "loads": loads, **limit}


FIGURES: dict[str, Any] = {
    "machine": "a machine",
    "seconds": 10.0,
    "pictures": {"count": 40, "median_bytes": 60_000, "made": True},
    "servers": {
        "Kennel, f32": server(30.0, first=0.9, bound=60.0),
        "Kennel, bf16": {"why": "not offered: the server chose f32"},
        "Kennel, int8": server(180.0, bound=200.0, p99=40.0),
        "TorchServe 0.12": server(15.0, first=9.0),
        "FastAPI, eager f32": {"why": "not installed: " + 200 * "x"},
    },
}


def test_ratios_are_over_torchserve_and_null_where_a_precision_is_not_offered() -> None:
    found = serving_table.summary(FIGURES)
    assert (found["ratio_f32"], found["ratio_bf16"], found["ratio_int8"]) == (2.0, None, 12.0)


def test_without_torchserve_every_ratio_is_null() -> None:
    figures = copy.deepcopy(FIGURES)
    figures["servers"]["TorchServe 0.12"] = {"why": "there is no Java"}
    found = serving_table.summary(figures)
    assert (found["ratio_f32"], found["ratio_int8"]) == (None, None)
    assert found["bound_fraction"] == 0.5


def test_of_several_precisions_the_worst_is_told_and_other_servers_do_not_count() -> None:
    found = serving_table.summary(FIGURES)
    assert (found["bound_fraction"], found["p99_over_p50"], found["first_answer_seconds"]) == (0.5, 4.0, 0.9)
    assert found["bound_fraction_of"] == {"f32": 0.5, "int8": 0.9}


def test_servers_are_compared_at_four_connections() -> None:
    figures = copy.deepcopy(FIGURES)
    figures["servers"]["Kennel, int8"]["loads"]["16"]["rate"] = 1.0
    figures["servers"]["TorchServe 0.12"]["loads"]["1"]["rate"] = 1.0
    assert serving_table.summary(figures)["ratio_int8"] == 12.0


def test_the_serving_table_has_a_row_for_each_load_and_fits_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    serving_table.show(FIGURES | serving_table.summary(FIGURES))
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 100
    assert len([line for line in lines if line.startswith("TorchServe 0.12")]) == 4  # three loads, and what it installs
    assert "Kennel, bf16          - not offered: the server chose f32" in lines
    assert any(line.split()[:2] == ["ratio_bf16", "null"] for line in lines)


def test_a_server_that_gave_no_answer_in_time_has_a_row_without_times(capsys: pytest.CaptureFixture[str]) -> None:
    figures = copy.deepcopy(FIGURES)
    nothing = {"rate": 0.0, "p50_ms": None, "p95_ms": None, "p99_ms": None, "agreement": None}
    figures["servers"]["TorchServe 0.12"]["loads"]["4"].update(nothing)
    found = serving_table.summary(figures)
    assert found["ratio_int8"] is None
    serving_table.show(figures | found)
    assert ["4", "0.0", "null", "null", "null"] in [line.split()[2:7] for line in capsys.readouterr().out.splitlines()]


def cold(**deployed: bool) -> dict[str, Any]:
    times = {"does nothing": 30.0, "boto3 client": 200.0, "boto3 client and call": 250.0}
    times |= {"Kennel, compiled": 100.0, "Kennel, source only": 150.0}
    clock = {"begun": 1.03, "imported": 1.07, "called": 1.08, "client": 0.01, "answered": 1.11}
    figures: dict[str, Any] = {"machine": "a machine", "endpoint_ms": 0.1, "direct_ms": 0.2, "warm_overhead_ms": 1.5}
    figures["cold_ms"] = {name: [value, value + 2, value + 1] for name, value in times.items()}
    figures["parts_ms"] = [lambda_table.parts(1.0, clock, 1.115)]
    figures["kilobytes"] = {"Kennel, compiled": 64.0, "Kennel, source only": 19.0}
    figures["warm"] = {"does nothing": {"answer_ms": 0.5, "beyond_endpoint_ms": None, "beyond_direct_ms": None}}
    return figures | {"deployed_compiled": True} | deployed


def test_the_parts_of_a_cold_start_are_the_whole() -> None:
    [found] = cold()["parts_ms"]
    assert tuple(found) == lambda_table.PARTS
    assert found == pytest.approx(
        {"start": 30, "import": 40, "runtime": 10, "client": 10, "first request": 20, "answer": 5}
    )


@pytest.mark.parametrize(("compiled", "ratio"), [(True, 101 / 201), (False, 151 / 201)])
def test_the_cold_ratio_is_of_medians_and_of_the_package_as_deployed(compiled: bool, ratio: float) -> None:
    found = lambda_table.summary(cold(deployed_compiled=compiled))
    assert found["cold_ratio"] == pytest.approx(ratio)
    assert found["cold_ratio_calling"] == pytest.approx(ratio * 201 / 251)
    assert (found["cold_ratio_compiled"], found["package_kb"]) == (pytest.approx(101 / 201), 64.0)


def test_each_answer_is_compared_with_its_own_call_of_the_endpoint() -> None:
    assert lambda_table.overhead([5.0, 2.0, 9.0], [4.0, 0.5, 7.0]) == 1.5
    with pytest.raises(ValueError, match=r"shorter|longer"):
        lambda_table.overhead([5.0, 2.0], [4.0])


def test_the_cold_start_tables_say_what_is_deployed(capsys: pytest.CaptureFixture[str]) -> None:
    figures = cold(deployed_compiled=False)
    lambda_table.show(figures | lambda_table.summary(figures))
    out = capsys.readouterr().out
    assert "deployed without compiled files" in out
    assert ["import", "40.00"] in [line.split() for line in out.splitlines()]
