"""Each form of a trained network: what is written answers as torch does, or is not offered."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from training import known  # noqa: E402
from training.calibration import softmax  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.hyperparameters import Hyperparameters  # noqa: E402
from training.passport import file_sha256  # noqa: E402
from training.train import export as exporting  # noqa: E402
from training.train.export import (  # noqa: E402
    BATCH,
    EXACT_IMAGES,
    TIE,
    Agreement,
    Reference,
    export,
    export_program,
    predict_in_torch,
    to_openvino,
    why_no_int8,
    write_openvino,
)

SIDE = 16
FLOAT32 = {"model.xml", "model.bin", "weights.pt"}
INT8 = {"model-int8.xml", "model-int8.bin"}


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


def _expected(network: Any, images: Any) -> Any:
    with torch.no_grad():
        return network.eval()(images).numpy()


def _export(
    network: Any, folder: Path, *, checked: int = 40, calibration: Any = 20, known: Any = None, **settings: Any
) -> Any:
    """Export; the labels are the network's own answers. int8 costs so small a network much."""
    chosen = Hyperparameters(**{"int8_loss": 0.5, **settings})
    images, labels = _images(checked), torch.tensor(_expected(network, _images(checked)).argmax(1))
    scales = None if calibration is None else _images(calibration)
    return export(network, images, labels, folder, settings=chosen, calibration=scales, known=known)


@pytest.fixture(scope="module")
def exported(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """What is exported for a runtime: the folder and `exports`."""

    @cache
    def make(runtime: str) -> tuple[Path, Any]:
        folder = tmp_path_factory.mktemp(runtime)
        return folder, _export(network, folder, runtime=runtime)

    return make


def _names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


Exported = Callable[[str], tuple[Path, Any]]


def test_by_default_float32_and_int8_are_offered_and_int8_is_another_network(exported: Exported) -> None:
    folder, exports = exported("openvino")
    assert _names(folder) == FLOAT32 | INT8
    assert list(exports) == ["float32", "int8"]
    assert exports["float32"]["file"] == "model.xml"
    assert (exports["float32"]["agreement"], exports["float32"]["accepted"]) == (1.0, True)
    assert exports["float32"]["largest_change"] < 1e-5
    assert exports["int8"].items() >= {"file": "model-int8.xml", "images": 40, "accepted": True}.items()
    assert 1e-4 < exports["int8"]["largest_change"] < 0.5
    assert (folder / "model-int8.bin").stat().st_size < 0.5 * (folder / "model.bin").stat().st_size


@pytest.mark.parametrize("name", ["model.xml", "model-int8.xml"])
def test_what_openvino_reads_takes_any_number_of_images_by_name(network: Any, exported: Exported, name: str) -> None:
    file = exported("openvino")[0] / name
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count in (1, 3):
        answer = compiled({"image": _images(count).numpy()})["logits"]
        assert answer.shape == (count, 4)
        assert answer == pytest.approx(_expected(network, _images(count)), abs=1e-4 if name == "model.xml" else 2.0)


def test_onnx_is_written_for_onnxruntime(network: Any, exported: Exported) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, exports = exported("onnxruntime")
    assert _names(folder) == {*FLOAT32, *INT8, "model.onnx"}  # the weights are inside
    assert exports["onnx"].items() >= {"file": "model.onnx", "agreement": 1.0, "accepted": True}.items()
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3):
        (answer,) = session.run(["logits"], {"image": _images(count).numpy()})
        assert answer == pytest.approx(_expected(network, _images(count)), abs=1e-4)


def test_pt2_is_written_for_torch(network: Any, exported: Exported) -> None:
    folder, exports = exported("torch")
    assert _names(folder) == {*FLOAT32, *INT8, "model.pt2"}
    assert exports["pt2"].items() >= {"file": "model.pt2", "agreement": 1.0, "accepted": True}.items()
    module = torch.export.load(folder / "model.pt2").module()
    for count in (1, 3):
        with torch.no_grad():
            answer = module(_images(count)).numpy()
        assert answer == pytest.approx(_expected(network, _images(count)), abs=1e-5)


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_with_a_reference_each_format_gives_logits_and_embedding_in_one_pass(
    network: Any, tmp_path: Path, runtime: str
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    with torch.no_grad():
        features, seen = (network.eval()[:-1](_images(count)).numpy() for count in (40, 3))
    labels = np.arange(40) % 4
    fitted = known.fit(features, labels, features, labels, coverage=0.9)
    _export(network, tmp_path, runtime=runtime, known=fitted)
    images = _images(3).numpy()
    assert np.load(tmp_path / "known.npy").tolist() == fitted.reference.rows.tolist()
    assert torch.load(tmp_path / "weights.pt").keys() == network.state_dict().keys()
    found = {}
    for name in ("model.xml", "model-int8.xml"):
        outputs = openvino.Core().compile_model(tmp_path / name, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)
        found[name] = [outputs["logits"], outputs["embedding"]]
    if runtime == "torch":
        with torch.no_grad():
            outputs = torch.export.load(tmp_path / "model.pt2").module()(torch.from_numpy(images))
        found["model.pt2"] = [output.numpy() for output in outputs]
    else:
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
        found["model.onnx"] = session.run(["logits", "embedding"], {"image": images})
    for name, (logits, embedding) in found.items():
        tolerance = 2.0 if "int8" in name else 1e-3
        assert logits == pytest.approx(_expected(network, _images(3)), abs=tolerance), name
        assert embedding == pytest.approx(seen @ fitted.axes, abs=tolerance), name


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_the_same_network_gives_the_same_bytes(network: Any, exported: Exported, tmp_path: Path, runtime: str) -> None:
    _export(network, tmp_path, runtime=runtime)
    one, other = ({f.name: file_sha256(f) for f in folder.iterdir()} for folder in (exported(runtime)[0], tmp_path))
    assert one == other
    assert len(one) == 6


def test_what_an_interrupted_export_left_is_gone(network: Any, tmp_path: Path) -> None:
    for name in ("model-int8.xml", "model-int8.bin", "model.onnx", "model.pt2"):
        (tmp_path / name).write_bytes(b"half")
    _export(network, tmp_path, calibration=None)
    assert _names(tmp_path) == FLOAT32


def test_int8_that_loses_accuracy_is_left_out_and_says_how_much(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "quantize", lambda model, images: _turned(network))
    int8 = _export(network, tmp_path, int8_loss=0.4)["int8"]
    assert int8["accepted"] is False
    assert int8["reason"] == "it costs more accuracy than int8_loss=0.4"
    assert int8["agreement"] < 0.9
    assert int8["largest_change"] > 0.1
    assert int8["loss"] > 0.9
    low, high = int8["loss_interval"]
    assert 0.8 < low < int8["loss"] <= high == 1.0
    assert "file" not in int8
    assert _names(tmp_path) == FLOAT32


def test_int8_is_judged_by_what_it_knows_and_not_by_how_alike_it_answers(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no answer was right, another one loses nothing."""
    monkeypatch.setattr(exporting, "quantize", lambda model, images: _turned(network))
    images = _images(40)
    worst = torch.tensor(_expected(network, images).argmin(1))
    exports = export(network, images, worst, tmp_path, settings=Hyperparameters(), calibration=_images(20))
    assert exports["int8"]["accepted"] is True
    assert exports["int8"]["loss"] < -0.9
    assert exports["int8"]["agreement"] < 0.9


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"int8": "no"}, "hyperparameter int8 is 'no'"),
        ({"int8": "no", "model": "efficientnet_b0"}, "hyperparameter int8 is 'no'"),
        ({"model": "efficientnet_b0"}, "int8 is known to cost efficientnet_b0 accuracy; set int8=yes to try it"),
        ({"model": "efficientnet_b0", "int8": "yes"}, ""),
        ({"model": "resnet50"}, ""),
    ],
)
def test_int8_is_not_tried_where_it_is_known_to_lose(settings: dict[str, Any], reason: str) -> None:
    assert why_no_int8(Hyperparameters(**settings)) == reason


def _turned(network: Any) -> Any:
    """A network in OpenVINO that answers the opposite."""
    converted = to_openvino(export_program(network, SIDE))
    result = converted.get_results()[0]
    turned = openvino.opset13.negative(result.input_value(0))
    model = openvino.Model([turned], converted.get_parameters(), "turned")
    model.outputs[0].set_names({"logits"})
    return model


def test_int8_is_judged_by_all_samples_and_torch_is_asked_about_a_few(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def in_torch(model: Any, batch: Any) -> Any:
        asked.append(len(batch))
        return predict_in_torch(model, batch)

    monkeypatch.setattr(exporting, "predict_in_torch", in_torch)
    exports = _export(network, tmp_path, checked=2 * EXACT_IMAGES)
    assert exports["float32"]["images"] == sum(asked) == EXACT_IMAGES
    assert exports["int8"]["images"] == 2 * EXACT_IMAGES


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
        answer = write_openvino(model, file)
        return _raise if "int8" in file.name else answer

    monkeypatch.setattr(exporting, "write_openvino", broken)
    assert _export(network, tmp_path)["int8"]["reason"] == "nncf failed (RuntimeError: no such primitive)"
    assert _names(tmp_path) == FLOAT32


def _raise(images: Any) -> Any:
    raise RuntimeError("no\nsuch   primitive")


def test_one_validation_image_cannot_speak_for_int8(network: Any, tmp_path: Path) -> None:
    exports = _export(network, tmp_path, checked=1)
    assert exports["float32"].items() >= {"images": 1, "accepted": True}.items()
    assert exports["int8"] == {"accepted": False, "reason": "1 validation image is too few to judge it"}
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
        logits = _expected(network, torch.from_numpy(images))
        return logits + np.array([0.05, 0, 0, 0])

    monkeypatch.setattr(exporting, writer, lambda program, file: wrong)
    with pytest.raises(TrainingError, match=rf"{name} disagrees with the trained network \(agreement=.*nothing is"):
        _export(network, tmp_path, calibration=None, runtime=runtime)
    assert "model.json" not in _names(tmp_path)


def _reference(logits: list[list[float]], temperature: float = 1.0) -> Reference:
    """Of a network that answers these: each picture holds its own logits, one a channel."""
    pictures = torch.tensor(logits)[:, :, None, None]
    return Reference(_by(lambda given: given), pictures, torch.zeros(len(logits), dtype=torch.int64), temperature)


def _by(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A network whose logits differ by `change`."""
    return lambda images: change(images.reshape(len(images), -1))


def test_the_same_answers_agree_wholly() -> None:
    assert _reference([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0]]).compare(_by(lambda logits: logits)) == Agreement(
        1.0, 0.0, 2, 0, 0
    )


def test_another_first_choice_counts_and_the_largest_change_is_of_any_class() -> None:
    logits = [[3.0, 1.0, 0.0]] * (2 * BATCH) + [[0.0, 2.0, 1.0]] * 4  # the last batch is not full

    def swapped(some: Any) -> Any:
        return np.where(some[:, :1] == 0, some[:, ::-1], some)  # [0, 2, 1] becomes [1, 2, 0], of the same first choice

    found = _reference(logits).compare(_by(swapped))
    weights = np.exp([0.0, 2.0, 1.0])
    assert found.share == 1.0
    assert found.change == pytest.approx((weights[2] - weights[0]) / weights.sum())
    other = _reference(logits).compare(_by(lambda some: np.where(some[:, :1] == 0, some[:, [1, 0, 2]], some)))
    assert (other.share, other.images) == (2 * BATCH / (2 * BATCH + 4), 2 * BATCH + 4)


def test_probabilities_are_compared_after_the_temperature() -> None:
    found = _reference([[4.0, 0.0]], temperature=4.0).compare(_by(lambda logits: logits * 2))
    expected = softmax(np.array([[8.0, 0.0]]), 4.0) - softmax(np.array([[4.0, 0.0]]), 4.0)
    assert found.change == pytest.approx(expected.max())


def test_a_choice_that_the_reference_holds_for_as_likely_is_no_other_one() -> None:
    apart = 2 * TIE  # logits of two classes, so probabilities a quarter of it around a half: within the tie
    assert _reference([[apart, 0.0]]).compare(_by(lambda logits: -logits)).share == 1.0
    assert _reference([[6 * apart, 0.0]]).compare(_by(lambda logits: -logits)).share == 0.0


def test_a_network_that_is_less_sure_of_another_choice_does_not_agree() -> None:
    found = _reference([[0.4, 0.3, 0.0]]).compare(_by(lambda logits: logits[:, [1, 0, 2]] / 4))
    assert found.share == 0.0


def test_a_network_whose_answers_are_no_numbers_agrees_with_nothing() -> None:
    found = _reference([[2.0, 1.0]]).compare(_by(lambda logits: logits * np.nan))
    assert found.change == 1.0
    assert not found.within(0.0, 0.99)
    assert (found.lost, found.won) == (1, 0)


def test_the_loss_is_of_pairs_with_an_interval() -> None:
    logits = [[2.0, 1.0]] * 6 + [[1.0, 2.0]] * 4  # class 0 is right; four are wrong
    found = _reference(logits).compare(_by(lambda some: np.where(some[:, :1] == 2.0, some[:, ::-1], some)))
    assert (found.lost, found.won, found.loss) == (6, 0, 0.6)
    low, high = found.loss_interval()
    assert (low, high) == pytest.approx(((6 - 1.96 * 2) / 12, (6 + 1.96 * 2) / 12), abs=1e-3)
    low, high = _reference(logits).compare(_by(lambda some: some)).loss_interval()
    assert (low, high) == pytest.approx((-1.96 / 12, 1.96 / 12), abs=1e-3)


@pytest.mark.parametrize(("share", "change", "holds"), [(0.98, 0.1, True), (0.97, 0.05, False), (1.0, 0.11, False)])
def test_both_limits_count(share: float, change: float, holds: bool) -> None:
    assert Agreement(share, change, 50, 0, 0).within(0.98, 0.1) is holds
