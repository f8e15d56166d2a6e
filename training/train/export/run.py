"""Every form of one trained network, each believed only if it agrees with torch."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import TrainingError
from training.hyperparameters import Hyperparameters
from training.train.export.agreement import Answer, Yardstick
from training.train.export.forms import openvino_of, write_onnx, write_openvino, write_pt2
from training.train.head.compiled import calibrated, program_of

SAME = (0.999, 0.001)  # agreement and change of a probability that float32 in another order of sums keeps easily
FEWEST = 2  # validation images that can speak for int8; the gate judges by the test split, and knows of few images

Exports = dict[str, dict[str, Any]]


def export(
    model: nn.Module,
    samples: Tensor,
    folder: Path,
    record: dict[str, Any],
    *,
    settings: Hyperparameters | None = None,
    calibration: Tensor | None = None,
) -> Exports:
    """Write the model and its record into `folder`; return what model.json says as `exports`.

    Each form must agree with torch on `samples`, float32 [N, 3, crop, crop]; int8 is tried where there are images for
    its `calibration`, shaped like them. The network is moved to the CPU. Raises TrainingError when float32 disagrees,
    in any form.
    """
    model, settings = model.cpu().eval(), settings or Hyperparameters()
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("model*"):  # by a run that was killed here
        left.unlink()
    yardstick = Yardstick(model, samples, record.get("temperature", 1.0))
    program = program_of(model, samples.shape[-1])
    converted = openvino_of(program)
    exports = {"float32": _exact(yardstick, "model.xml", write_openvino(converted, folder / "model.xml"))}
    exports["int8"] = _int8(yardstick, converted, folder / "model-int8.xml", settings, calibration)
    if settings.runtime == "onnxruntime":
        exports["onnx"] = _exact(yardstick, "model.onnx", write_onnx(program, folder / "model.onnx"))
    if settings.runtime == "torch":
        exports["pt2"] = _exact(yardstick, "model.pt2", write_pt2(program, folder / "model.pt2"))
    torch.save(model.state_dict(), folder / "weights.pt")
    (folder / "model.json").write_text(json.dumps({**record, "exports": exports}, indent=1), encoding="utf-8")
    return exports


def _exact(yardstick: Yardstick, name: str, answer: Answer) -> dict[str, Any]:
    found = yardstick.hold(answer)
    if not found.holds(*SAME):
        raise TrainingError(f"{name} disagrees with the trained network ({found}); nothing is released.")
    return {"file": name, **found.to_dict(), "accepted": True}


def _int8(
    yardstick: Yardstick, converted: Any, file: Path, settings: Hyperparameters, calibration: Tensor | None
) -> dict[str, Any]:
    if calibration is None:
        return _refused("it was not asked for")
    if yardstick.images < FEWEST:
        return _refused(f"{yardstick.images} validation image cannot speak for it")
    try:
        found = yardstick.hold(write_openvino(calibrated(converted, calibration), file))
    except Exception as error:  # whatever a library of this size may raise: the float32 model is whole without it
        _remove(file)
        return _refused(f"nncf failed ({type(error).__name__}: {error})")
    if found.holds(settings.export_agreement, settings.export_change):
        return {"file": file.name, **found.to_dict(), "accepted": True}
    _remove(file)
    wanted = f"export_agreement={settings.export_agreement:g} and export_change={settings.export_change:g}"
    return {**_refused(f"it misses {wanted}"), **found.to_dict()}


def _refused(reason: str) -> dict[str, Any]:
    return {"accepted": False, "reason": " ".join(reason.split())[:300]}


def _remove(file: Path) -> None:
    for half in (file, file.with_suffix(".bin")):
        half.unlink(missing_ok=True)
