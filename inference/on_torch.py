"""torch, for GPUs: what torch.export wrote, on CUDA where there is one."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference import images
from inference.artifact import Artifact
from inference.runtime_selection import Selection


def supported_precisions() -> dict[str, str]:
    """Return precision -> what the hardware has for it."""
    if not torch.cuda.is_available():
        return {"float32": "any processor"}
    name = torch.cuda.get_device_name()
    return {"float32": name} | ({"bfloat16": name} if torch.cuda.is_bf16_supported(including_emulation=False) else {})


class Torch:
    def __init__(self, module: torch.nn.Module, artifact: Artifact, selection: Selection, device: str) -> None:
        self._module, self._preprocessing, self._device = module, artifact.preprocessing, device
        self._reduced = selection.precision == "bfloat16"

    def outputs(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return logits and perhaps the embedding for [crop, crop, 3]; raise RuntimeError."""
        image = torch.from_numpy(images.normalized(pixels, self._preprocessing)).to(self._device)
        with torch.inference_mode(), torch.autocast(self._device, torch.bfloat16, enabled=self._reduced):
            return [output[0].float().cpu().numpy() for output in _outputs(self._module, image)]


def _outputs(module: torch.nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return logits and perhaps the embedding; a network of an early version gives one tensor and no tuple."""
    outputs = module(image)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def load(file: Path, artifact: Artifact, selection: Selection) -> Torch:
    """Return the network; raise StartError when the file does not fit model.json, and what torch raises."""
    torch.set_num_threads(1)  # the threads that ask compute
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = torch.export.load(file).module().to(device)
    crop = artifact.preprocessing.crop
    with torch.inference_mode():
        outputs = _outputs(module, torch.zeros(1, 3, crop, crop, device=device))
    artifact.check_outputs("model.pt2", [list(output.shape) for output in outputs])
    return Torch(module, artifact, selection, device)
