"""Each form of a trained network: what is written answers as torch does, or is not offered."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from training.errors import TrainingError  # noqa: E402
from training.hyperparameters import Hyperparameters  # noqa: E402
from training.passport import file_sha256  # noqa: E402
from training.train.export import export, forms, run  # noqa: E402
from training.train.head.compiled import program_of  # noqa: E402

SIDE = 16
FLOAT32 = {"model.json", "model.xml", "model.bin", "weights.pt"}
INT8 = {"model-int8.xml", "model-int8.bin"}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network() -> Any:
    """Small, and sure of what it sees: the normalization's statistics are those of the images."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 16, 3, 2, 1), torch.nn.BatchNorm2d(16, momentum=None), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(64, 4))
    with torch.no_grad():
        model(_images(64))
        model[-1].weight *= 3
    return model


def _images(count: int) -> Any:
    """Of so many colours, [count, 3, SIDE, SIDE]."""
    chance = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 1, 1, generator=chance) + torch.randn(count, 3, SIDE, SIDE, generator=chance)


def _meant(network: Any, images: Any) -> Any:
    with torch.no_grad():
        return network.eval()(images).numpy()


def _export(network: Any, folder: Path, *, checked: int = 40, calibration: Any = 20, **settings: Any) -> Any:
    """Export; return `exports`, which must stand in model.json too. int8 costs so small a network much."""
    chosen = Hyperparameters(**{"export_agreement": 0.5, "export_change": 0.5, **settings})
    images = None if calibration is None else _images(calibration)
    exports = export(network, _images(checked), folder, {"format": 1}, settings=chosen, calibration=images)
    assert json.loads((folder / "model.json").read_text("utf-8")) == {"format": 1, "exports": exports}
    return exports


def _names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_by_default_float32_and_int8_are_offered_and_int8_is_another_network(network: Any, tmp_path: Path) -> None:
    exports = _export(network, tmp_path)
    assert _names(tmp_path) == FLOAT32 | INT8
    assert list(exports) == ["float32", "int8"]
    assert exports["float32"]["file"] == "model.xml"
    assert (exports["float32"]["agreement"], exports["float32"]["accepted"]) == (1.0, True)
    assert exports["float32"]["largest_change"] < 1e-5
    assert exports["int8"].items() >= {"file": "model-int8.xml", "images": 40, "accepted": True}.items()
    assert 1e-4 < exports["int8"]["largest_change"] < 0.5
    assert (tmp_path / "model-int8.bin").stat().st_size < 0.5 * (tmp_path / "model.bin").stat().st_size


@pytest.mark.parametrize("name", ["model.xml", "model-int8.xml"])
@pytest.mark.parametrize("count", [1, 3])
def test_what_openvino_reads_takes_any_number_of_images_by_name(
    network: Any, tmp_path: Path, name: str, count: int
) -> None:
    _export(network, tmp_path)
    compiled = openvino.Core().compile_model(tmp_path / name, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = compiled({"image": _images(count).numpy()})["logits"]
    assert answer.shape == (count, 4)
    assert answer == pytest.approx(_meant(network, _images(count)), abs=1e-4 if name == "model.xml" else 2.0)


@pytest.mark.parametrize("count", [1, 3])
def test_onnx_is_written_for_onnxruntime(network: Any, tmp_path: Path, count: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    exports = _export(network, tmp_path, calibration=None, runtime="onnxruntime")
    assert _names(tmp_path) == {*FLOAT32, "model.onnx"}  # the weights are inside
    assert exports["onnx"].items() >= {"file": "model.onnx", "agreement": 1.0, "accepted": True}.items()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (answer,) = session.run(["logits"], {"image": _images(count).numpy()})
    assert answer == pytest.approx(_meant(network, _images(count)), abs=1e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_pt2_is_written_for_torch(network: Any, tmp_path: Path, count: int) -> None:
    exports = _export(network, tmp_path, calibration=None, runtime="torch")
    assert _names(tmp_path) == {*FLOAT32, "model.pt2"}
    assert exports["pt2"].items() >= {"file": "model.pt2", "agreement": 1.0, "accepted": True}.items()
    with torch.no_grad():
        answer = torch.export.load(tmp_path / "model.pt2").module()(_images(count)).numpy()
    assert answer == pytest.approx(_meant(network, _images(count)), abs=1e-5)


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_the_same_network_gives_the_same_bytes(network: Any, tmp_path: Path, runtime: str) -> None:
    for name in ("one", "other"):
        _export(network, tmp_path / name, runtime=runtime)
    one, other = ({f.name: file_sha256(f) for f in (tmp_path / name).iterdir()} for name in ("one", "other"))
    assert one == other
    assert len(one) == 7


def test_what_an_interrupted_export_left_is_gone(network: Any, tmp_path: Path) -> None:
    for name in ("model-int8.xml", "model-int8.bin", "model.onnx", "model.pt2"):
        (tmp_path / name).write_bytes(b"half")
    _export(network, tmp_path, calibration=None)
    assert _names(tmp_path) == FLOAT32


@pytest.mark.parametrize(
    ("limit", "told"), [({"export_change": 1e-6}, "export_change=1e-06"), ({"export_agreement": 1.0}, "agreement=1 ")]
)
def test_int8_beyond_a_limit_is_left_out_and_says_by_how_much(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: dict[str, float], told: str
) -> None:
    monkeypatch.setattr(run, "calibrated", lambda model, images: _turned(network))
    limits: dict[str, Any] = {"export_agreement": 0.0, "export_change": 1.0, **limit}
    int8 = _export(network, tmp_path, **limits)["int8"]
    assert int8["accepted"] is False
    assert told in int8["reason"]
    assert int8["agreement"] < 0.9
    assert int8["largest_change"] > 0.1
    assert "file" not in int8
    assert _names(tmp_path) == FLOAT32


def _turned(network: Any) -> Any:
    """A network in OpenVINO that answers the opposite."""
    converted = forms.openvino_of(program_of(network, SIDE))
    result = converted.get_results()[0]
    turned = openvino.opset13.negative(result.input_value(0))
    model = openvino.Model([turned], converted.get_parameters(), "turned")
    model.outputs[0].set_names({"logits"})
    return model


def test_without_nncf_the_model_is_float32s_alone(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    int8 = _export(network, tmp_path)["int8"]
    assert int8["accepted"] is False
    assert int8["reason"].startswith("nncf failed (ModuleNotFoundError: import of nncf halted")
    assert _names(tmp_path) == FLOAT32


def test_an_int8_that_breaks_on_the_way_leaves_nothing(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: Any, file: Path) -> Any:
        answer = write(model, file)
        return _raise if "int8" in file.name else answer

    write = forms.write_openvino
    monkeypatch.setattr(run, "write_openvino", broken)
    assert _export(network, tmp_path)["int8"]["reason"] == "nncf failed (RuntimeError: no such primitive)"
    assert _names(tmp_path) == FLOAT32


def _raise(images: Any) -> Any:
    raise RuntimeError("no\nsuch   primitive")


def test_one_validation_image_cannot_speak_for_int8(network: Any, tmp_path: Path) -> None:
    exports = _export(network, tmp_path, checked=1)
    assert exports["float32"].items() >= {"images": 1, "accepted": True}.items()
    assert exports["int8"] == {"accepted": False, "reason": "1 validation image cannot speak for it"}
    assert _export(network, tmp_path, checked=2)["int8"]["images"] == 2


@pytest.mark.parametrize(
    ("runtime", "writer", "name"),
    [
        ("openvino", "write_openvino", "model.xml"),
        ("onnxruntime", "write_onnx", "model.onnx"),
        ("torch", "write_pt2", "model.pt2"),
    ],
)
def test_a_float32_that_disagrees_releases_nothing(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, writer: str, name: str
) -> None:
    def wrong(images: Any) -> Any:
        logits = _meant(network, torch.from_numpy(images))
        return logits + np.array([0.05, 0, 0, 0])

    monkeypatch.setattr(run, writer, lambda program, file: wrong)
    with pytest.raises(TrainingError, match=rf"{name} disagrees with the trained network \(agreement=.*nothing is"):
        _export(network, tmp_path, calibration=None, runtime=runtime)
    assert "model.json" not in _names(tmp_path)
