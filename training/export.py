"""Writes what is served: OpenVINO's form of the network, checked against torch, and the record beside it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

from training.errors import TrainingError

TOLERANCE = 1e-3  # of the largest logit: float32 sums in another order differ by far less


def export(model: nn.Module, samples: Tensor, folder: Path, record: dict[str, Any]) -> float:
    """Write model.xml, model.bin, weights.pt and model.json; return the largest difference of a logit.

    `samples` are float32 [N, 3, crop, crop] on which the export must agree with torch. The network is moved to the
    CPU. Raises TrainingError when the two disagree.
    """
    model = model.cpu().eval()
    folder.mkdir(parents=True, exist_ok=True)
    # torch.export takes a size of one for a constant, so the example has two images.
    example = torch.zeros(2, *samples.shape[1:])
    program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    converted = openvino.convert_model(program)
    converted.inputs[0].set_names({"image"})
    converted.outputs[0].set_names({"logits"})
    openvino.save_model(converted, folder / "model.xml", compress_to_fp16=False)
    difference = _difference(model, samples, folder / "model.xml")
    torch.save(model.state_dict(), folder / "weights.pt")
    (folder / "model.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return difference


def _difference(model: nn.Module, samples: Tensor, file: Path) -> float:
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    served = compiled(samples.numpy())[0]  # [N, classes]
    with torch.inference_mode():
        meant = model(samples).numpy()  # [N, classes]
    difference = float(np.abs(served - meant).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(meant).max())):
        raise TrainingError(
            f"The exported model disagrees with the trained one by {difference:.3g}; nothing is released."
        )
    return difference
