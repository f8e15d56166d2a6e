"""How well an exported network agrees with the one that was trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.calibration import softmax

BATCH = 8
# What torch itself holds for as likely as its first choice, but for rounding, is no other answer: in a large split
# there is always an image that hangs in the balance, and a finished training shall not fail for that.
TIE = 1e-4

Answer = Callable[[NDArray[np.float32]], NDArray[Any]]  # images [n, 3, side, side] -> logits [n, classes]


@dataclass(frozen=True)
class Agreement:
    """`share` of the images with torch's first choice, and the largest `change` of any probability."""

    share: float
    change: float
    images: int

    def holds(self, share: float, change: float) -> bool:
        return self.share >= share and self.change <= change

    def to_dict(self) -> dict[str, float | int]:
        return {"agreement": self.share, "largest_change": self.change, "images": self.images}

    def __str__(self) -> str:
        return f"agreement={self.share:.4f} largest_change={self.change:.6f} images={self.images}"


class Yardstick:
    """What torch answers in float32 for `images`, float32 [N, 3, side, side]; `temperature` divides the logits.

    Not the logits that training left: those may come from bfloat16 or int8 features.
    """

    def __init__(self, model: nn.Module, images: Tensor, temperature: float) -> None:
        self._images, self._temperature = images.numpy(), temperature
        self._meant = self._probabilities(lambda batch: _in_torch(model, batch))

    @property
    def images(self) -> int:
        return len(self._images)

    def hold(self, answer: Answer) -> Agreement:
        """Return how far `answer` agrees with torch."""
        served, meant = self._probabilities(answer), self._meant  # [N, classes]
        chosen = meant[np.arange(len(meant)), served.argmax(1)]
        same = chosen >= meant.max(1) - TIE
        change = np.nan_to_num(np.abs(served - meant).max(), nan=1.0)  # no number is as far from torch as can be
        return Agreement(float(same.mean()), float(change), len(meant))

    def _probabilities(self, answer: Answer) -> NDArray[np.float64]:
        parts = [self._images[start : start + BATCH] for start in range(0, len(self._images), BATCH)]
        return np.concatenate([softmax(answer(part), self._temperature) for part in parts])


@torch.inference_mode()
def _in_torch(model: nn.Module, batch: NDArray[np.float32]) -> NDArray[Any]:
    # In this order of memory torch's convolutions are faster: ResNet-50 at 224 takes 50 ms an image, not 84.
    logits: Tensor = model(torch.from_numpy(batch).contiguous(memory_format=torch.channels_last))
    return logits.numpy()
