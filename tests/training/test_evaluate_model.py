"""Scores of known answers, and the job on a model whose answers are known."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
import pytest
from openvino import opset13 as ops
from PIL import Image
from sklearn.metrics import (  # type: ignore[import-untyped]
    f1_score,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from training.__main__ import main
from training.evaluate import scores
from training.paths import Paths
from training.transform import Preprocessing

CLASSES = ("a", "b", "c")


def _answers() -> scores.Answers:
    confident = {0: [0.8, 0.12, 0.08], 1: [0.15, 0.8, 0.05], 2: [0.05, 0.15, 0.8]}
    told = [(0, 0), (0, 0), (0, 1), (0, 1), (1, 1), (1, 2), (2, 2), (2, 2), (2, 2), (2, 0)]
    probabilities = np.array([confident[predicted] for _, predicted in told])
    return scores.Answers(probabilities, np.array([true for true, _ in told], np.int64))


def test_the_confusion_matrix_has_truth_in_rows() -> None:
    assert scores.confusion(_answers()).tolist() == [[2, 2, 0], [0, 1, 1], [1, 0, 3]]


def test_scores_agree_with_scikit_learn() -> None:
    answers = _answers()
    rows = scores.per_class(scores.confusion(answers), CLASSES)
    theirs = precision_recall_fscore_support(answers.labels, answers.predicted)
    for name, values in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        assert [row[name] for row in rows] == pytest.approx(list(values))
    assert scores.macro_f1(scores.confusion(answers)) == pytest.approx(
        f1_score(answers.labels, answers.predicted, average="macro")
    )
    assert scores.top_accuracy(answers, 2) == pytest.approx(
        top_k_accuracy_score(answers.labels, answers.probabilities, k=2)
    )


def test_a_class_that_never_occurs_counts_for_nothing() -> None:
    matrix = np.array([[3, 0, 0], [1, 2, 0], [0, 0, 0]], np.int64)
    assert scores.per_class(matrix, CLASSES)[2] == {
        "class": "c",
        "precision": 0,
        "recall": 0,
        "f1": 0,
        "support": 0,
    }
    assert scores.macro_f1(matrix) == pytest.approx((6 / 7 + 4 / 5) / 2)


def test_the_calibration_error_is_the_gap_between_confidence_and_truth() -> None:
    bins = scores.calibration(_answers())
    assert len(bins) == 1
    assert (bins[0].share, bins[0].confidence, bins[0].accuracy) == pytest.approx((1, 0.8, 0.6))
    assert scores.expected_calibration_error(bins) == pytest.approx(0.2)


def test_mistakes_are_listed_by_frequency() -> None:
    assert scores.confusion_pairs(scores.confusion(_answers()), CLASSES) == [
        {"true": "a", "predicted": "b", "count": 2},
        {"true": "b", "predicted": "c", "count": 1},
        {"true": "c", "predicted": "a", "count": 1},
    ]


def _solid(red: int, green: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), (red, green, 0)).save(stream, "PNG")
    return stream.getvalue()


def _model(folder: Path, classes: tuple[str, ...] = ("green", "red")) -> None:
    """A network that answers by the stronger of the mean green and the mean red."""
    image = ops.parameter([-1, 3, 32, 32], np.float32, name="image")
    means = ops.reduce_mean(image, np.array([2, 3]), keep_dims=False)
    logits = ops.gather(means, np.array([1, 0]), np.array(1))
    model = openvino.Model([logits], [image], "means")
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    how = Preprocessing(32, 32, mean=(0.5, 0.5, 0.5), std=(0.1, 0.1, 0.1)).to_dict()
    record = {"format": 1, "architecture": "means", "classes": classes, "preprocessing": how}
    (folder / "model.json").write_text(json.dumps(record), "utf-8")


@pytest.fixture
def inputs(
    add: Callable[[str, bytes], None], prepared: Callable[..., dict[str, Any]], opt_ml: Paths, tmp_path: Path
) -> Callable[..., None]:
    """Eight test images, one of them lying in the wrong class folder; a model that is made to order."""
    for number in range(8):
        wrong = number == 7
        red = number % 2 == 0
        name = "red" if red != wrong else "green"
        add(f"test/{name}/{number}.png", _solid(250, number) if red else _solid(number, 250))
    for number in range(8):
        add(f"{('train', 'valid')[number // 4]}/{('red', 'green')[number % 2]}/{number}.png", _solid(100, number))
    prepared()
    shutil.copytree(opt_ml.processing_output("data") / "test", opt_ml.processing_input("test"))

    def make(make_model: Callable[[Path], None] = _model) -> None:
        folder, target = tmp_path / "model", opt_ml.processing_input("model")
        folder.mkdir()
        target.mkdir()
        make_model(folder)
        with tarfile.open(target / "model.tar.gz", "w:gz") as archive:
            archive.add(folder, ".")

    return make


def test_the_job_measures_the_exported_model(inputs: Callable[..., None], opt_ml: Paths) -> None:
    inputs()
    assert main(["evaluate"]) == 0
    output = opt_ml.processing_output("evaluation")
    report = json.loads((output / "evaluation.json").read_text("utf-8"))
    assert report["metrics"]["accuracy"] == {"value": 7 / 8}
    assert report["metrics"]["top5_accuracy"] == {"value": 1.0}
    assert set(report["metrics"]) == {"accuracy", "top5_accuracy", "macro_f1", "expected_calibration_error"}
    assert (report["format"], report["test_samples"], report["classes"]) == (1, 8, ["green", "red"])
    assert report["confusion_pairs"] == [{"true": "red", "predicted": "green", "count": 1}]
    assert [row["support"] for row in report["per_class"]] == [3, 5]
    assert {"name": "red/7.png", "label": "red", "predicted": "green"}.items() <= report["samples"][-1].items()
    for name in ("confusion", "per_class", "calibration"):
        with Image.open(output / "figures" / f"{name}.png") as figure:
            assert min(figure.size) > 200


def test_a_model_of_other_classes_is_refused(inputs: Callable[..., None], refused: Callable[..., str]) -> None:
    inputs(lambda folder: _model(folder, ("green", "blue")))
    assert "different classes" in refused("evaluate")


def test_an_archive_without_a_model_is_refused(inputs: Callable[..., None], refused: Callable[..., str]) -> None:
    inputs(lambda folder: None)
    assert "holds no model.json, model.xml, model.bin" in refused("evaluate")


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b\x08 cut"])
def test_a_broken_archive_is_refused(
    data: bytes, inputs: Callable[..., None], opt_ml: Paths, refused: Callable[..., str]
) -> None:
    inputs()
    (opt_ml.processing_input("model") / "model.tar.gz").write_bytes(data)
    assert "model.tar.gz cannot be unpacked" in refused("evaluate")


def test_a_missing_model_is_refused(inputs: Callable[..., None], refused: Callable[..., str]) -> None:
    assert "model.tar.gz is missing" in refused("evaluate")


def test_a_missing_test_split_is_refused(opt_ml: Paths, refused: Callable[..., str]) -> None:
    assert "index.json is missing" in refused("evaluate")
