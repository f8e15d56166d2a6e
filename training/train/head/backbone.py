"""The network without its last layer: batches of images in, features out."""

import hashlib
from collections import deque
from collections.abc import Generator, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from training.errors import TrainingError
from training.train.model import head_of

GPU_BATCH = 128


class Backbone(Protocol):
    """`run` takes batches of at most `batch` images, float32 [n, 3, side, side], and yields each one's features,
    float32 [n, width], in the same order. Batches are taken ahead of what is yielded."""

    @property
    def batch(self) -> int: ...

    def run(self, batches: Iterable[Tensor]) -> Generator[Tensor]: ...


def behead(model: nn.Module) -> tuple[str, int]:
    """Put nothing in the place of the last linear layer; return its name and the width of the features it took."""
    head = head_of(model)
    name = next(name for name, module in model.named_modules() if module is head)
    model.set_submodule(name, nn.Identity())
    return name, head.in_features


def digest(backbone: nn.Module) -> str:
    """Return the SHA-256 of all weights and statistics with their names and shapes.

    Raises TrainingError for one that is infinite or NaN: what follows it might make finite features of that.
    """
    total = hashlib.sha256()
    for name, value in backbone.state_dict().items():
        if not value.isfinite().all():
            raise TrainingError(f"The weights' {name} holds infinite or undefined numbers; upload sound ones.")
        total.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        total.update(value.contiguous().view(-1).view(torch.uint8).numpy())
    return total.hexdigest()


class Torch:
    """The backbone on a GPU."""

    def __init__(self, backbone: nn.Module, device: torch.device, precision: torch.dtype) -> None:
        self.batch, self._device, self._precision = GPU_BATCH, device, precision
        self._backbone = backbone.to(device).to(memory_format=torch.channels_last).eval()

    def run(self, batches: Iterable[Tensor]) -> Generator[Tensor]:
        waiting: deque[Tensor] = deque()
        for images in batches:
            waiting.append(self._features(images))
            if len(waiting) > 1:  # so that the GPU has work while the one before is fetched
                yield waiting.popleft().cpu()
        while waiting:
            yield waiting.popleft().cpu()

    @torch.inference_mode()
    def _features(self, images: Tensor) -> Tensor:
        images = images.to(self._device, non_blocking=True, memory_format=torch.channels_last)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._precision is torch.bfloat16):
            features: Tensor = self._backbone(images)
        return features.float()
