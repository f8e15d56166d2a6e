"""The Evaluate job on models whose answers are known."""

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
from training.__main__ import main
from training.paths import Paths
from training.transform import Preprocessing


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
