"""torch, for GPUs: what torch.export wrote, on CUDA where there is one."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference import images
from inference.artifact import Artifact
from inference.errors import StartError
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

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return [classes] for [crop, crop, 3]; raise RuntimeError."""
        image = torch.from_numpy(images.normalized(pixels, self._preprocessing)).to(self._device)
        with torch.inference_mode(), torch.autocast(self._device, torch.bfloat16, enabled=self._reduced):
            answer: NDArray[np.float32] = self._module(image)[0].float().cpu().numpy()
        return answer


def load(file: Path, artifact: Artifact, selection: Selection) -> Torch:
    """Return the network; raise StartError when the file does not fit model.json, and what torch raises."""
    torch.set_num_threads(1)  # the threads that ask compute
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = torch.export.load(file).module().to(device)
    crop = artifact.preprocessing.crop
    with torch.inference_mode():
        shape = list(module(torch.zeros(1, 3, crop, crop, device=device)).shape)
    if shape != [1, len(artifact.classes)]:
        names = len(artifact.classes)
        raise StartError(f"model.json names {names} classes, but the output of model.pt2 has the shape {shape}.")
    return Torch(module, artifact, selection, device)
