"""What learns in whole-network mode: the network, its optimizer and, if wanted, the running mean of its weights."""

import os
import shutil
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.errors import TrainingError
from training.train import engine
from training.train.job import Job


class Learner:
    """The state of whole-network training on this worker; `network` and `kept` have the plain network's names."""

    def __init__(self, job: Job) -> None:
        self._job, self._settings = job, job.settings
        # Convolutions in bfloat16 are several times faster on a CPU if the channels lie last.
        self.network = job.network().to(job.device).to(memory_format=torch.channels_last)
        self.optimizer = engine.optimizer_for(self.network, weight_decay=self._settings.weight_decay)
        self._average = engine.averaged(self.network, self._settings.ema) if self._settings.ema else None
        self._stepped = self._wrapped()

    @property
    def kept(self) -> nn.Module:
        """What is validated and exported: the averaged weights if there are any."""
        return self._average.module if self._average else self.network

    def step(self, images: Tensor, labels: Tensor, *, rate: float, share: float) -> float:
        """Learn from a batch and return its mean loss; `share` is mixup's. Raises engine.NotFinite."""
        try:
            loss = engine.train_step(
                self._stepped,
                self.optimizer,
                images,
                labels,
                rate=rate,
                label_smoothing=self._settings.label_smoothing,
                precision=self._job.precision,
                share=share,
            )
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(str(error).partition("\n\n")[0].split())[:300]
            raise TrainingError(f"The network could not be compiled ({reason}); set compile=no.") from error
        if self._average:
            self._average.update_parameters(self.network)
        return loss

    def answer(self, batches: Iterable[Tensor]) -> Tensor:
        """Return what the kept network says of batches of images, float32 [images, classes]."""
        self._share_statistics()
        return engine.answer(self.kept, batches, self._job.precision).reshape(-1, self._job.architecture.classes)

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint must hold of it."""
        average = self._average.state_dict() if self._average else None
        return {"model": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "average": average}

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._average:
            self._average.load_state_dict(state["average"])

    def _share_statistics(self) -> None:
        """Batch normalization's statistics are each worker's own; all answer with worker 0's, which are exported."""
        group, own = self._job.group, list(self.kept.buffers())
        if group.world_size > 1:
            for mine, first in zip(own, group.broadcast([buffer.cpu() for buffer in own]), strict=True):
                mine.copy_(first)

    def _wrapped(self) -> nn.Module:
        module: nn.Module = self.network
        if self._job.group.world_size > 1:
            device = self._job.device
            module = DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)
        return _compiled(module) if self._settings.compile == "yes" else module


def _compiled(module: nn.Module) -> nn.Module:
    compiler = os.environ.get("CXX", "g++")  # as torch's inductor looks for it
    if shutil.which(compiler) is None:
        raise TrainingError(f"compile=yes needs a C++ compiler, but {compiler} is not here; install it or set CXX.")
    return torch.compile(module)  # type: ignore[return-value]
