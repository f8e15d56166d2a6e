"""Exports the trained network in every format that was chosen, each accepted only if it agrees with torch."""

import contextlib
import io
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram

from training.calibration import Z, softmax
from training.errors import TrainingError
from training.hyperparameters import SUITED_TO_INT8, Hyperparameters
from training.known import FILE, Fitted
from training.train.embedding import WithEmbedding

BATCH = 8
EXACT_IMAGES = 32  # on which each float32 format is compared with torch: a wrong conversion shows on any image
EXACT = (0.999, 0.001)  # agreement and change of a probability: float32, summed in another order, stays well within
MIN_SAMPLES = 2  # validation images on which int8 can be judged; the quality gate measures it on the test split
OUTPUTS = ("logits", "embedding")  # of a network; the second is absent where nothing is known
# Of classes that torch finds equally likely but for rounding, none counts as another answer: in a large split there is
# always such an image, and a finished training must not fail because of it.
TIE = 1e-4

Predict = Callable[[NDArray[np.float32]], NDArray[Any]]  # images [n, 3, side, side] -> logits [n, classes]
Exports = dict[str, dict[str, Any]]


def export(
    model: nn.Module,
    samples: Tensor,
    labels: Tensor,
    folder: Path,
    *,
    temperature: float = 1.0,
    settings: Hyperparameters | None = None,
    calibration: Tensor | None = None,
    known: Fitted | None = None,
) -> Exports:
    """Write the model into `folder`; return what model.json has as `exports`.

    Each float32 format must agree with torch on some of the `samples`, float32 [N, 3, crop, crop], or TrainingError is
    raised. int8 is tried where there are images for its `calibration`, shaped like them. By the samples' `labels`,
    int64 [N], it may lose little accuracy against the float32 that was written: that has just agreed with torch, and is
    faster. The network is moved to the CPU. With `known` each format gives the embedding beside the logits, and the
    reference is written too.
    """
    model, settings = model.cpu().eval(), settings or Hyperparameters()
    folder.mkdir(parents=True, exist_ok=True)
    for abandoned in (*folder.glob("model*"), *folder.glob(FILE)):  # by a run that was killed here
        abandoned.unlink()
    every = -(-len(samples) // EXACT_IMAGES)  # over the classes
    spread = samples[::every].contiguous()
    reference = Reference(partial(predict_in_torch, model), spread, labels[::every], temperature)
    program = export_program(WithEmbedding(model, known) if known else model, samples.shape[-1])
    network = to_openvino(program)
    float32 = write_openvino(network, folder / "model.xml")
    exports = {"float32": _exact(reference, "model.xml", float32)}
    written = Reference(float32, samples, labels, temperature)
    exports["int8"] = _int8(written, network, folder / "model-int8.xml", settings, calibration)
    if settings.runtime == "onnxruntime":
        exports["onnx"] = _exact(reference, "model.onnx", write_onnx(program, folder / "model.onnx"))
    if settings.runtime == "torch":
        exports["pt2"] = _exact(reference, "model.pt2", write_pt2(program, folder / "model.pt2"))
    torch.save(model.state_dict(), folder / "weights.pt")
    if known:
        np.save(folder / FILE, known.reference.rows, allow_pickle=False)
    return exports


def _exact(reference: "Reference", name: str, predict: Predict) -> dict[str, Any]:
    agreement = reference.compare(predict)
    if not agreement.within(*EXACT):
        raise TrainingError(f"{name} disagrees with the trained network ({agreement}); nothing is released.")
    return {"file": name, **agreement.to_dict(), "accepted": True}


def _int8(
    reference: "Reference", network: Any, file: Path, settings: Hyperparameters, calibration: Tensor | None
) -> dict[str, Any]:
    if calibration is None:
        return _rejected(why_no_int8(settings))
    if len(reference) < MIN_SAMPLES:
        return _rejected(f"{len(reference)} validation image is too few to judge it")
    try:
        agreement = reference.compare(write_openvino(quantize(network, calibration), file))
    except Exception as error:  # whatever a library of this size may raise: the float32 model is complete without it
        _remove(file)
        return _rejected(f"nncf failed ({type(error).__name__}: {error})")
    found = {**agreement.to_dict(), "loss": agreement.loss, "loss_interval": list(agreement.loss_interval())}
    if agreement.loss <= settings.int8_loss:
        return {"file": file.name, **found, "accepted": True}
    _remove(file)
    return {**_rejected(f"it costs more accuracy than int8_loss={settings.int8_loss:g}"), **found}


def why_no_int8(settings: Hyperparameters) -> str:
    """Return why int8 is not to be tried at all, or nothing."""
    if settings.int8 == "no":
        return "hyperparameter int8 is 'no'"
    if settings.int8 == "auto" and settings.model not in SUITED_TO_INT8:
        return f"int8 is known to cost {settings.model} accuracy; set int8=yes to try it"
    return ""


def _rejected(reason: str) -> dict[str, Any]:
    return {"accepted": False, "reason": " ".join(reason.split())[:300]}


def _remove(file: Path) -> None:
    for half in (file, file.with_suffix(".bin")):
        half.unlink(missing_ok=True)


@dataclass(frozen=True)
class Agreement:
    """`share` of the images with the reference's first choice, and the largest `change` of any probability.

    `lost` images are right in the reference alone, `won` ones in the other alone.
    """

    share: float
    change: float
    images: int
    lost: int
    won: int

    def within(self, share: float, change: float) -> bool:
        return self.share >= share and self.change <= change

    def to_dict(self) -> dict[str, float | int]:
        return {"agreement": self.share, "largest_change": self.change, "images": self.images}

    @property
    def loss(self) -> float:
        """Return the loss of accuracy."""
        return (self.lost - self.won) / self.images

    def loss_interval(self) -> tuple[float, float]:
        """Return the 95 % interval of `loss`, from pairs (Agresti and Min 2005: half an image more of each kind)."""
        images, difference = self.images + 2, self.lost - self.won
        reach = Z * math.sqrt(self.lost + self.won + 1 - difference**2 / images)
        return max(-1.0, (difference - reach) / images), min(1.0, (difference + reach) / images)

    def __str__(self) -> str:
        return f"agreement={self.share:.4f} largest_change={self.change:.6f} images={self.images}"


class Reference:
    """The probabilities of `predict` for `images`, float32 [N, 3, side, side], whose `labels` are int64 [N].

    `temperature` divides the logits.

    Computed here, once they are asked for: the logits that training left may come from bfloat16 or int8 features.
    """

    def __init__(self, predict: Predict, images: Tensor, labels: Tensor, temperature: float) -> None:
        self._predict, self._images, self._labels = predict, images.numpy(), labels.numpy()
        self._temperature = temperature

    def __len__(self) -> int:
        return len(self._images)

    def compare(self, predict: Predict) -> Agreement:
        """Return how far another network agrees."""
        found, expected = self._probabilities(predict), self._expected
        chosen = expected[np.arange(len(expected)), found.argmax(1)]
        same = chosen >= expected.max(1) - TIE
        change = np.nan_to_num(np.abs(found - expected).max(), nan=1.0)  # NaN is as far away as can be
        right, still = (
            (answers.argmax(1) == self._labels) & np.isfinite(answers).all(1) for answers in (expected, found)
        )
        lost, won = int((right & ~still).sum()), int((still & ~right).sum())
        return Agreement(float(same.mean()), float(change), len(expected), lost, won)

    @cached_property
    def _expected(self) -> NDArray[np.float64]:
        return self._probabilities(self._predict)  # [N, classes]

    def _probabilities(self, predict: Predict) -> NDArray[np.float64]:
        parts = [self._images[start : start + BATCH] for start in range(0, len(self._images), BATCH)]
        return np.concatenate([softmax(predict(part), self._temperature) for part in parts])


@torch.inference_mode()
def predict_in_torch(model: nn.Module, batch: NDArray[np.float32]) -> NDArray[Any]:
    # In this order of memory torch's convolutions are faster: ResNet-50 at 224 takes 50 ms an image, not 84.
    logits: Tensor = model(torch.from_numpy(batch).contiguous(memory_format=torch.channels_last))
    return logits.numpy()


def export_program(network: nn.Module, side: int) -> ExportedProgram:
    """Return torch's graph of a network that takes float32 [N, 3, side, side]."""
    # torch.export takes a size of one for a constant, so the example has two images. The older tracer takes as long
    # (3.5 s for ResNet-50) and is deprecated.
    example = torch.zeros(2, 3, side, side)
    return torch.export.export(network.eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def to_openvino(program: ExportedProgram) -> Any:
    """Return the openvino.Model, whose input is `image`; the outputs are `logits` and perhaps `embedding`."""
    network = openvino.convert_model(program)
    network.inputs[0].set_names({"image"})
    for output, name in zip(network.outputs, OUTPUTS, strict=False):
        output.set_names({name})
    return network


def quantize(network: Any, images: Tensor) -> Any:
    """Return the openvino.Model in int8, with scales from `images`, float32 [N, 3, side, side]."""
    os.environ.setdefault("NNCF_CI", "1")  # switches its usage reports off
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # looks for CUDA when nncf loads it
    import nncf  # type: ignore[import-untyped]  # takes half a second

    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(network, nncf.Dataset(list(images[:, None].numpy())), subset_size=len(images))


def write_openvino(network: Any, file: Path) -> Predict:
    """Write `file` and the .bin beside it, with float32 weights uncompressed; return what the written file computes."""
    # The default names count what this process has made before: the same network must give the same bytes.
    network.set_friendly_name("network")
    for number, operation in enumerate(network.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    openvino.save_model(network, file, compress_to_fp16=False)
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: np.array(compiled(images)[0])  # a copy: the next result takes its place


def write_onnx(program: ExportedProgram, file: Path) -> Predict:
    """Write one ONNX file, weights included; return what the written file computes."""
    import onnxruntime  # type: ignore[import-untyped]  # only where it was chosen

    names = [*OUTPUTS[: len(program.graph_signature.user_outputs)]]
    torch.onnx.export(
        program, f=file, input_names=["image"], output_names=names, dynamo=True, external_data=False, verbose=False
    )
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"image": images})[0]


def write_pt2(program: ExportedProgram, file: Path) -> Predict:
    """Write torch's own format; return what the written file computes."""
    torch.export.save(program, file)
    module = torch.export.load(file).module()

    def predict(images: Any) -> Any:
        with torch.inference_mode():
            answer = module(torch.from_numpy(images))
            return (answer[0] if isinstance(answer, tuple) else answer).numpy()

    return predict
