"""OpenVINO: the default on processors of Intel and AMD.

As many pictures at once as there are cores, each computed by one of OpenVINO's own threads on one core: no thread
waits at a barrier between layers. The caller waits without Python's lock, so the next picture is decoded meanwhile.
"""

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
from numpy.typing import NDArray

from inference.artifact import Artifact, Preprocessing
from inference.errors import StartError
from inference.runtime_selection import Selection
from inference.runtime_selection import supported_precisions as supported_precisions

_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # int8's whole numbers stand in the network itself


class OpenVino:
    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._free: deque[Any] = deque()  # requests, each with memory of its own for the layers between

    def outputs(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return logits and perhaps the embedding for [crop, crop, 3]; raise RuntimeError."""
        try:
            request = self._free.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            request.get_input_tensor().data[0] = pixels
            request.infer()
            return [np.array(output.data[0], np.float32) for output in request.output_tensors]
        finally:
            self._free.append(request)


def load(file: Path, artifact: Artifact, selection: Selection) -> OpenVino:
    """Return the network; raise StartError when the files do not fit model.json, and what OpenVINO raises."""
    config = {
        "INFERENCE_PRECISION_HINT": _HINTS[selection.precision],
        "NUM_STREAMS": str(selection.threads),
        "INFERENCE_NUM_THREADS": str(selection.threads),
        # Other threads decode on the same cores: the kernel moves them all better than a fixed table.
        "ENABLE_CPU_PINNING": "NO",
    }
    core = openvino.Core()
    model = core.read_model(file)
    _check(model, artifact, file.name)
    return OpenVino(core.compile_model(_from_pixels(model, artifact.preprocessing), "CPU", config))


def _from_pixels(model: Any, preprocessing: Preprocessing) -> Any:
    """Return the network with the picture's bytes [1, crop, crop, 3] as input; its first layers normalize them."""
    model.reshape([1, 3, preprocessing.crop, preprocessing.crop])
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean(
        [255 * value for value in preprocessing.mean]
    ).scale([255 * value for value in preprocessing.std])
    return steps.build()


def _check(model: Any, artifact: Artifact, name: str) -> None:
    crop = artifact.preprocessing.crop
    if not _only_port(model.inputs, [1, 3, crop, crop]) or "image" not in model.input(0).names:
        raise StartError(f"{name} must have one input, image, of shape [1, 3, {crop}, {crop}], as model.json says.")
    artifact.check_outputs(name, [_sizes(port.partial_shape) for port in model.outputs])


def _only_port(ports: list[Any], shape: list[int]) -> bool:
    return len(ports) == 1 and bool(ports[0].partial_shape.compatible(openvino.PartialShape(shape)))


def _sizes(shape: Any) -> list[int | None]:
    """Return the sizes of an output's shape; None for each that is open."""
    if shape.rank.is_dynamic:
        return [None, None]
    return [size.get_length() if size.is_static else None for size in shape]
