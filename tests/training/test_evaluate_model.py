"""The Evaluate job on models whose answers are known."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.training.small import CLASSES, Labelled, pack, solid, write_model, write_split
from training.__main__ import main
from training.evaluate import network
from training.evaluate.scores import interval
from training.passport import code_sha256, file_sha256
from training.paths import Paths

GREEN, RED = 0, 1
EIGHT: list[Labelled] = [
    *((GREEN, solid(number, 250)) for number in range(3)),
    *((RED, solid(250, number)) for number in range(4)),
    (RED, solid(7, 250)),  # lies in the wrong class
]


@pytest.fixture
def evaluated(opt_ml: Paths, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run Evaluate, which must succeed, and return evaluation.json."""

    def run(images: list[Labelled] = EIGHT, **record: Any) -> dict[str, Any]:
        write_split(opt_ml.processing_input("test"), images)
        write_model(tmp_path / "model", **record)
        pack(tmp_path / "model", opt_ml.processing_input("model") / "model.tar.gz")
        assert main(["evaluate"]) == 0
        report: dict[str, Any] = json.loads(
            (opt_ml.processing_output("evaluation") / "evaluation.json").read_text("utf-8")
        )
        return report

    return run


def test_the_job_measures_the_exported_model(evaluated: Callable[..., dict[str, Any]], opt_ml: Paths) -> None:
    report = evaluated()
    metrics = {name: metric["value"] for name, metric in report["metrics"].items()}
    assert metrics["accuracy"] == 7 / 8
    assert metrics["accuracy_lower"] == pytest.approx(interval(7, 8)[0])
    assert metrics["top5_accuracy"] == 1.0
    assert metrics["worst_classes_recall"] == pytest.approx((1 + 4 / 5) / 2)
    assert (report["format"], report["test_samples"], report["classes"]) == (1, 8, ["green", "red"])
    assert report["confusion_pairs"] == [{"true": "red", "predicted": "green", "count": 1}]
    assert [row["support"] for row in report["per_class"]] == [3, 5]
    assert {"name": "red/7.png", "label": "red", "predicted": "green"}.items() <= report["samples"][-1].items()
    for name in ("confusion", "per_class", "calibration"):
        with Image.open(opt_ml.processing_output("evaluation") / "figures" / f"{name}.png") as figure:
            assert min(figure.size) > 200


def test_the_temperature_makes_the_answers_less_sure_and_no_other(evaluated: Callable[..., dict[str, Any]]) -> None:
    report = evaluated([(GREEN, solid(0, 255)), (RED, solid(0, 255))], temperature=10.0)
    confidence = 1 / (1 + math.exp(-1))  # logits 10 and 0, divided by 10
    assert report["samples"][0]["probability"] == pytest.approx(confidence)
    assert report["metrics"]["expected_calibration_error"]["value"] == pytest.approx(confidence - 0.5)
    assert report["metrics"]["uncalibrated_error"]["value"] == pytest.approx(1 / (1 + math.exp(-10)) - 0.5)
    assert report["metrics"]["accuracy"]["value"] == 0.5


def test_an_artifact_without_temperature_and_threshold_is_taken_as_it_is(
    evaluated: Callable[..., dict[str, Any]],
) -> None:
    report = evaluated()
    assert report["abstain"] is None
    assert report["metrics"]["uncalibrated_error"] == report["metrics"]["expected_calibration_error"]


def test_the_threshold_is_measured_on_the_test_split(evaluated: Callable[..., dict[str, Any]]) -> None:
    unsure = (RED, solid(120, 125))  # taken for green, logits 0.2 apart
    report = evaluated([*EIGHT[:7], unsure], abstain={"threshold": 0.7, "coverage": 1.0, "precision": 0.99})
    assert report["abstain"] == {"threshold": 0.7, "coverage": 7 / 8, "precision": 1.0}


def test_a_threshold_that_lets_nothing_through_has_no_precision(evaluated: Callable[..., dict[str, Any]]) -> None:
    report = evaluated([(RED, solid(120, 125))], abstain={"threshold": 0.7, "coverage": 1.0, "precision": 0.99})
    assert report["abstain"] == {"threshold": 0.7, "coverage": 0.0, "precision": None}


def test_one_image_is_enough(evaluated: Callable[..., dict[str, Any]]) -> None:
    report = evaluated(EIGHT[:1])
    assert report["metrics"]["accuracy"] == {"value": 1.0}
    assert report["metrics"]["accuracy_lower"]["value"] == pytest.approx(0.2065, abs=1e-4)
    assert report["metrics"]["worst_classes_recall"] == {"value": 1.0}


def test_what_the_model_says_of_itself_is_handed_on(evaluated: Callable[..., dict[str, Any]]) -> None:
    record = {"history": [{"epoch": 1}], "trials": [], "trained_on": {"instance_type": "ml.m5.xlarge"}}
    report = evaluated(**record)
    assert record.items() <= report["model"].items()
    assert report["model"]["data"] == {"fingerprint": "ab12"}


def test_the_passport_is_named_by_its_hash(evaluated: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    assert evaluated()["passport"] == {
        "sha256": file_sha256(tmp_path / "model" / "passport.json"),
        "data_fingerprint": "ab12",
        "code_sha256": code_sha256(),
        "image": "registry/image:1",
    }


def test_an_artifact_from_before_passports_is_evaluated_without(evaluated: Callable[..., dict[str, Any]]) -> None:
    assert set(evaluated(passport=False)["passport"].values()) == {None}


def test_a_model_that_answers_nan_is_refused(opt_ml: Paths, tmp_path: Path, refused: Callable[..., str]) -> None:
    write_split(opt_ml.processing_input("test"), EIGHT)
    write_model(tmp_path / "model", scale=math.nan)
    pack(tmp_path / "model", opt_ml.processing_input("model") / "model.tar.gz")
    assert "infinite or undefined" in refused("evaluate")
    assert not (opt_ml.processing_output("evaluation") / "evaluation.json").exists()


def test_a_class_that_the_model_does_not_know_is_named(
    opt_ml: Paths, tmp_path: Path, refused: Callable[..., str]
) -> None:
    write_split(opt_ml.processing_input("test"), [(0, solid(1, 2))], ("blue", "green", "red"))
    write_model(tmp_path / "model")
    pack(tmp_path / "model", opt_ml.processing_input("model") / "model.tar.gz")
    assert "different classes (the model does not know 'blue')" in refused("evaluate")


def test_classes_in_another_order_are_refused(opt_ml: Paths, tmp_path: Path, refused: Callable[..., str]) -> None:
    write_split(opt_ml.processing_input("test"), EIGHT, CLASSES[::-1])
    write_model(tmp_path / "model")
    pack(tmp_path / "model", opt_ml.processing_input("model") / "model.tar.gz")
    assert "in another order" in refused("evaluate")


def test_more_answers_than_classes_are_refused(opt_ml: Paths, tmp_path: Path, refused: Callable[..., str]) -> None:
    classes = ("blue", "green", "red")
    write_split(opt_ml.processing_input("test"), [(0, solid(1, 2))], classes)
    write_model(tmp_path / "model", classes=classes)
    pack(tmp_path / "model", opt_ml.processing_input("model") / "model.tar.gz")
    assert "answers [1, 2] for 1 images of 3 classes" in refused("evaluate")


@pytest.mark.parametrize(
    "record",
    [
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": "warm"},
        {"abstain": {"coverage": 1}},
        {"abstain": [1]},
        {"classes": 5},
    ],
)
def test_a_record_with_impossible_numbers_is_refused(
    opt_ml: Paths, tmp_path: Path, refused: Callable[..., str], record: dict[str, Any]
) -> None:
    write_split(opt_ml.processing_input("test"), EIGHT)
    write_model(tmp_path / "model", **record)
    pack(tmp_path / "model", opt_ml.processing_input("model") / "model.tar.gz")
    assert "model.json of the model is broken" in refused("evaluate")


def test_images_are_answered_in_batches_in_the_splits_order(tmp_path: Path) -> None:
    labels = [int(number % 3 == 0) for number in range(2 * network.BATCH + 3)]
    images = [(label, solid(250, 0) if label else solid(0, 250)) for label in labels]
    split = write_split(tmp_path / "split", images)
    write_model(tmp_path / "model")
    answers = network.answer(network.load(tmp_path / "model"), split)["float32"]
    assert len(answers) == len(images)
    assert answers.right.all()
    assert answers.labels.tolist() == labels
