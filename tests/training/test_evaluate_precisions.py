"""Each precision that may be served is measured, and the worst of them is what the gate hears of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.small import Labelled, pack, solid, write_model, write_split
from training import cpu
from training.__main__ import main
from training.evaluate import network
from training.evaluate.scores import interval
from training.passport import write_passport
from training.paths import Paths

OFFERED: dict[str, Any] = {
    "exports": {"float32": {"accepted": True}, "int8": {"file": "model-int8.xml", "accepted": True}}
}
FOUR: list[Labelled] = [(0, solid(1, 250)), (0, solid(2, 250)), (0, solid(3, 250)), (1, solid(4, 250))]

Evaluated = Callable[..., dict[str, Any]]


@pytest.fixture
def evaluated(opt_ml: Paths, tmp_path: Path) -> Evaluated:
    """Run Evaluate on four images, of which float32 gets three right; return evaluation.json."""

    def run(**model: Any) -> dict[str, Any]:
        write_split(opt_ml.processing_input("test"), FOUR)
        write_model(tmp_path / "model", **model)
        pack(tmp_path / "model", opt_ml.processing_input("model") / "model.tar.gz")
        assert main(["evaluate"]) == 0
        output = opt_ml.processing_output("evaluation")
        report: dict[str, Any] = json.loads((output / "evaluation.json").read_text("utf-8"))
        return report

    return run


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One without bfloat16, so that the tests find the same everywhere."""
    monkeypatch.setattr(network, "supports_bfloat16", lambda: False)


def test_the_gate_hears_of_the_worst_precision_that_is_offered(
    evaluated: Evaluated, capsys: pytest.CaptureFixture[str]
) -> None:
    report = evaluated(int8=-10.0, **OFFERED)  # takes each class for the other: one of four right
    assert report["precisions"] == {
        "float32": {"accuracy": 0.75, "accuracy_lower": pytest.approx(interval(3, 4)[0])},
        "int8": {"accuracy": 0.25, "accuracy_lower": pytest.approx(interval(1, 4)[0])},
    }
    metrics = {name: metric["value"] for name, metric in report["metrics"].items()}
    assert metrics["served_accuracy_lower"] == pytest.approx(interval(1, 4)[0])
    assert (metrics["accuracy"], metrics["accuracy_lower"]) == (0.75, pytest.approx(interval(3, 4)[0]))
    assert "accuracy by precision: float32=0.750000 int8=0.250000\n" in capsys.readouterr().out
    assert report["confusion_pairs"] == [{"true": "red", "predicted": "green", "count": 1}]  # float32's


def test_a_better_int8_raises_nothing(evaluated: Evaluated, tmp_path: Path) -> None:
    report = evaluated(scale=-10.0, int8=10.0, **OFFERED)
    assert report["precisions"]["int8"]["accuracy"] == 0.75
    assert report["metrics"]["served_accuracy_lower"]["value"] == pytest.approx(interval(1, 4)[0])


@pytest.mark.parametrize("exports", [None, {}, {"int8": {"accepted": False, "reason": "it misses something"}}])
def test_what_is_not_offered_is_not_measured(evaluated: Evaluated, exports: Any) -> None:
    report = evaluated(int8=-10.0, exports=exports)
    assert list(report["precisions"]) == ["float32"]
    assert report["metrics"]["served_accuracy_lower"] == report["metrics"]["accuracy_lower"]


def test_bfloat16_is_measured_where_the_machine_multiplies_it(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "supports_bfloat16", lambda: True)
    report = evaluated(int8=10.0, **OFFERED)
    assert list(report["precisions"]) == ["float32", "bfloat16", "int8"]
    assert report["precisions"]["bfloat16"]["accuracy"] == 0.75


@pytest.mark.skipif(not cpu.supports_bfloat16(), reason="this processor does not multiply bfloat16")
def test_each_precision_is_compiled_as_it_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "supports_bfloat16", lambda: True)
    write_model(tmp_path, int8=5.0, **OFFERED)
    compiled = network.load(tmp_path).compiled
    hints = {name: str(one.get_property("INFERENCE_PRECISION_HINT")) for name, one in compiled.items()}
    assert (hints["float32"], hints["int8"]) == ("<Type: 'float32'>", "<Type: 'float32'>")
    assert hints["bfloat16"] != hints["float32"]


@pytest.mark.parametrize("name", ["model-int8.xml", "model-int8.bin"])
def test_int8_that_is_offered_and_missing_is_refused(
    opt_ml: Paths, tmp_path: Path, refused: Callable[..., str], name: str
) -> None:
    write_split(opt_ml.processing_input("test"), FOUR)
    record = write_model(tmp_path / "model", int8=10.0, **OFFERED)
    (tmp_path / "model" / name).unlink()
    write_passport(tmp_path / "model", record, image="")
    pack(tmp_path / "model", opt_ml.processing_input("model") / "model.tar.gz")
    assert "OpenVINO cannot load model-int8.xml" in refused("evaluate")


@pytest.mark.parametrize("exports", [5, {"int8": 5}, [1]])
def test_a_record_of_broken_exports_is_refused(
    opt_ml: Paths, tmp_path: Path, refused: Callable[..., str], exports: Any
) -> None:
    write_split(opt_ml.processing_input("test"), FOUR)
    write_model(tmp_path / "model", exports=exports)
    pack(tmp_path / "model", opt_ml.processing_input("model") / "model.tar.gz")
    assert "model.json of the model is broken" in refused("evaluate")
