"""ONNX Runtime, for Graviton: float32 throughout, each picture on one core, by the thread that asks."""

from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from inference import images
from inference.artifact import Artifact
from inference.errors import StartError
from inference.runtime_selection import Selection
from inference.runtime_selection import supported_precisions as supported_precisions


class OnnxRuntime:
    def __init__(self, session: onnxruntime.InferenceSession, artifact: Artifact) -> None:
        self._session, self._preprocessing = session, artifact.preprocessing

    def outputs(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return logits and perhaps the embedding for [crop, crop, 3]; raise RuntimeError."""
        outputs = self._session.run(None, {"image": images.normalized(pixels, self._preprocessing)})
        return [np.asarray(output[0], np.float32) for output in outputs]


def load(file: Path, artifact: Artifact, selection: Selection) -> OnnxRuntime:
    """Return the network; raise StartError when the file does not fit model.json, and what ONNX Runtime raises."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the threads that ask compute
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    _check(session, artifact)
    return OnnxRuntime(session, artifact)


def _check(session: onnxruntime.InferenceSession, artifact: Artifact) -> None:
    crop = artifact.preprocessing.crop
    if not _fits(session.get_inputs(), [1, 3, crop, crop]) or session.get_inputs()[0].name != "image":
        raise StartError(f"model.onnx must have one input, image, of shape [1, 3, {crop}, {crop}], as model.json says.")
    artifact.check_outputs("model.onnx", [port.shape for port in session.get_outputs()])


def _fits(ports: list[onnxruntime.NodeArg], shape: list[int]) -> bool:
    """Return whether the one port has that shape; open sizes have a name instead of a number."""
    if len(ports) != 1 or len(ports[0].shape) != len(shape):
        return False
    return all(not isinstance(found, int) or found == size for found, size in zip(ports[0].shape, shape, strict=True))
