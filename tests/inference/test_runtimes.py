"""The same answers from each library that may compute the network, and one sentence about a file that it cannot use."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference import artifact, classifier
from inference.errors import StartError
from inference.runtime_selection import Selection, supported_precisions
from tests.inference.tiny import FACTS, Server, listening, picture, start, write_model

pytestmark = pytest.mark.torch

EXPORTS = {"openvino": ("float32", "model.xml"), "onnxruntime": ("onnx", "model.onnx"), "torch": ("pt2", "model.pt2")}


def pixels(red: int, green: int, blue: int) -> NDArray[np.uint8]:
    return np.broadcast_to(np.array([red, green, blue], np.uint8), (32, 32, 3))


def meant(values: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The tiny model's logits: the colours, less the mean of 0.5, divided by the deviation of 0.2."""
    return np.asarray((values[0, 0] / 255 - 0.5) / 0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in all three forms."""
    import torch
    from onnx import TensorProto, helper, save

    target = write_model(tmp_path_factory.mktemp("three") / "model")

    class Means(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.mean((2, 3))

    shape = {0: torch.export.Dim("batch")}
    torch.export.save(
        torch.export.export(Means(), (torch.zeros(2, 3, 32, 32),), dynamic_shapes=(shape,)), target / "model.pt2"
    )
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    means = helper.make_node("ReduceMean", ["image", "axes"], ["logits"], keepdims=0)
    graph = helper.make_graph([means], "means", [image], [logits], [axes])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), target / "model.onnx")
    exports = {name: {"file": file, "accepted": True} for name, file in EXPORTS.values()}
    (target / "model.json").write_text(json.dumps(FACTS | {"exports": exports}))
    return target


def load(folder: Path, runtime: str, precision: str = "float32", threads: int = 2) -> Any:
    found = artifact.load(folder)
    return classifier.load_runtime(found, Selection(runtime, precision, EXPORTS[runtime][0], threads, ""))


@pytest.mark.parametrize("runtime", EXPORTS)
def test_the_bytes_of_a_picture_are_normalized_as_model_json_says(folder: Path, runtime: str) -> None:
    for values in (pixels(0, 128, 255), pixels(102, 153, 204)):
        assert load(folder, runtime).outputs(values)[0] == pytest.approx(meant(values), abs=1e-5)


@pytest.mark.parametrize("runtime", EXPORTS)
def test_a_network_with_an_embedding_gives_it_beside_the_logits(tmp_path: Path, runtime: str) -> None:
    import torch

    from training import known
    from training.hyperparameters import Hyperparameters
    from training.train.export import export

    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3))
    labels = np.arange(30) % 3
    features = np.eye(3, dtype=np.float32)[labels]
    fitted = known.fit(features, labels, features, labels, coverage=0.9)
    settings = Hyperparameters(int8="no", runtime=runtime)
    black = torch.zeros(2, 3, 32, 32)
    exports = export(network, black, torch.zeros(2, dtype=torch.int64), tmp_path, settings=settings, known=fitted)
    (tmp_path / "model.json").write_text(json.dumps({**FACTS, "known": fitted.record, "exports": exports}))
    embedding = load(tmp_path, runtime).outputs(pixels(0, 128, 255))[1]
    assert embedding == pytest.approx(meant(pixels(0, 128, 255)) @ fitted.axes, abs=1e-4)


@pytest.mark.parametrize("runtime", EXPORTS)
def test_threads_at_once_get_their_own_answers(folder: Path, runtime: str) -> None:
    shared, wrong = load(folder, runtime), list[bool]()
    shared.outputs(pixels(0, 0, 0))  # alone, as the server does it

    def ask(red: int) -> None:
        values = pixels(red, 255 - red, 7)
        for _ in range(50):
            wrong.extend(np.abs(shared.outputs(values)[0] - meant(values)) > 1e-4)

    threads = [threading.Thread(target=ask, args=(red,)) for red in (10, 80, 160, 240)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 600
    assert not any(wrong)


@pytest.mark.parametrize(("precision", "hint"), [("float32", "f32"), ("bfloat16", "bf16"), ("int8", "f32")])
def test_openvino_computes_a_picture_a_core_in_the_precision_that_was_chosen(
    folder: Path, precision: str, hint: str
) -> None:
    if precision not in supported_precisions():
        pytest.skip(f"this processor does not support {precision}")
    compiled = load(folder, "openvino", precision, threads=2)._compiled
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == hint
    assert compiled.get_property("NUM_STREAMS") == 2
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 2


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_a_server_of_another_runtime_keeps_the_contract(folder: Path, runtime: str) -> None:
    process = start(folder.parent, RUNTIME=runtime)
    try:
        answer = Server(process, listening(process)).classify(picture(colour="red"))
    finally:
        process.kill()
        process.communicate()
    assert answer.status == 200
    odds = np.exp(meant(pixels(254, 0, 0)))  # what JPEG makes of red
    assert answer.json["probabilities"] == pytest.approx(odds / odds.sum(), abs=1e-3)


@pytest.mark.parametrize("runtime", EXPORTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_that_is_none_is_named(folder: Path, tmp_path: Path, runtime: str) -> None:
    found = artifact.load(folder)
    name, file = EXPORTS[runtime]
    (tmp_path / file).write_bytes(b"nothing of the kind")
    selection = Selection(runtime, "float32", name, 1, "")
    with pytest.raises(StartError, match=f"{file} cannot be loaded by "):
        classifier.load_runtime(replace(found, files={name: tmp_path / file}), selection)


@pytest.mark.parametrize("runtime", EXPORTS)
def test_more_classes_than_outputs_are_refused(folder: Path, runtime: str) -> None:
    found = replace(artifact.load(folder), classes=("a", "b", "c", "d"))
    with pytest.raises(StartError, match=r"model.json names 4 classes, but the output of model\.\w+ has the shape "):
        classifier.load_runtime(found, Selection(runtime, "float32", EXPORTS[runtime][0], 1, ""))


@pytest.mark.parametrize(("runtime", "name"), [("openvino", "model.xml"), ("onnxruntime", "model.onnx")])
def test_a_network_that_takes_other_pictures_is_refused(folder: Path, runtime: str, name: str) -> None:
    found = artifact.load(folder)
    other = replace(found, preprocessing=replace(found.preprocessing, crop=30))
    with pytest.raises(StartError, match=f"{name} must have one input, image, of shape "):
        classifier.load_runtime(other, Selection(runtime, "float32", EXPORTS[runtime][0], 1, ""))


@pytest.fixture
def without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "inference.on_onnxruntime", raising=False)
    yield


def test_a_runtime_that_the_image_lacks_is_said(without_onnxruntime: None) -> None:
    with pytest.raises(StartError, match=r"this image has no onnxruntime .*; build it with RUNTIME=onnxruntime"):
        classifier.supported_precisions("onnxruntime")
