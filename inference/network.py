"""The network behind OpenVINO."""

import threading
import time

import numpy as np
import openvino  # type: ignore[import-untyped]
from numpy.typing import NDArray

from inference.artifact import Artifact
from inference.errors import StartError

_SICK_AFTER = 3  # failures in a row
_STUCK_AFTER = 30.0  # seconds for one picture

# f32 whatever the processor offers: bf16 machines would answer otherwise than those where the model was evaluated.
_CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


class Network:
    """One compiled model; `infer` may be called from any thread, one runs at a time on all cores."""

    def __init__(self, artifact: Artifact) -> None:
        """Raises StartError when OpenVINO cannot read the files or they do not fit model.json."""
        try:
            model = openvino.Core().read_model(artifact.network)
            _check(model, artifact)
            self._request = openvino.Core().compile_model(model, "CPU", _CONFIG).create_infer_request()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise StartError(f"{artifact.network} cannot be loaded by OpenVINO: {reason}.") from error
        self._temperature = artifact.temperature
        self._lock = threading.Lock()
        self._failures = 0
        self._began: float | None = None  # time.monotonic() of the inference that runs

    @property
    def healthy(self) -> bool:
        """False after repeated failures, and while an inference does not come back."""
        began = self._began
        stuck = began is not None and time.monotonic() - began > _STUCK_AFTER
        return self._failures < _SICK_AFTER and not stuck

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float64]:
        """[3, crop, crop] to probabilities [classes]; raises RuntimeError when the network fails."""
        with self._lock:
            self._failures += 1  # taken back below: whatever goes wrong on the way counts
            self._began = time.monotonic()
            try:
                logits = self._logits(image)
            finally:
                self._began = None
            self._failures = 0
        odds = np.exp((logits - logits.max()) / self._temperature)  # in this order no temperature overflows the best
        return np.asarray(odds / odds.sum())

    def _logits(self, image: NDArray[np.float32]) -> NDArray[np.float64]:
        self._request.infer({"image": image[np.newaxis]})
        logits = np.array(self._request.get_output_tensor(0).data[0], np.float64)  # [classes]
        if not np.isfinite(logits).all():
            raise RuntimeError("the network's output holds numbers that are not finite")
        return logits


def _check(model: openvino.Model, artifact: Artifact) -> None:
    crop, classes = artifact.preprocessing.crop, len(artifact.classes)
    if not _only_port(model.inputs, [1, 3, crop, crop]) or "image" not in model.input(0).names:
        raise StartError(f"model.xml must have one input, image, that takes [1, 3, {crop}, {crop}] as model.json says.")
    if not _only_port(model.outputs, [1, classes]):
        shapes = ", ".join(str(port.partial_shape) for port in model.outputs)
        raise StartError(f"model.json names {classes} classes, but the output of model.xml has the shape {shapes}.")


def _only_port(ports: list[openvino.Output], shape: list[int]) -> bool:
    return len(ports) == 1 and bool(ports[0].partial_shape.compatible(openvino.PartialShape(shape)))
