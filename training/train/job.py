"""What one training run works with and what it leaves, in either mode."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from training.distributed.process_group import ProcessGroup
from training.errors import TrainingError
from training.hyperparameters import Hyperparameters
from training.paths import Paths
from training.split import load_split
from training.train import model as networks
from training.train.device import choose_precision
from training.train.weights import read_record, read_weights
from training.transform import Preprocessing


class Flag(Protocol):
    """Set by SIGTERM; looked at after each step."""

    @property
    def is_set(self) -> bool: ...


class Job:
    """The inputs of a run, read once. Raises TrainingError for channels, weights and settings that do not fit."""

    def __init__(self, paths: Paths, settings: Hyperparameters, group: ProcessGroup, device: torch.device) -> None:
        self.paths, self.settings, self.group, self.device = paths, settings, group, device
        self.train_split, self.valid_split = load_split(paths.channel("train")), load_split(paths.channel("valid"))
        if self.train_split.classes != self.valid_split.classes:
            raise TrainingError("The channels train and valid have different classes; both must come from one Prepare.")
        self.how = Preprocessing.for_image_size(settings.image_size)
        self.weights = read_weights(paths.channel("weights"))
        self.mode = networks.resolve_mode(settings, self.weights is not None)
        self.precision = choose_precision(settings.precision, device, mode=self.mode)
        state = self.weights[1] if self.weights else None
        self.architecture = networks.choose(settings, len(self.train_split.classes), state)

    def network(self) -> nn.Module:
        """Return the network on the CPU: seeded, with the pretrained weights if there are any, all of it learning."""
        torch.manual_seed(self.settings.seed)
        model = networks.build(self.architecture)
        if self.weights:
            networks.load_weights(model, self.architecture, *self.weights)
        return model

    def identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be taken up."""
        weights = read_record(self.paths.channel("weights")).get("sha256")
        images = hashlib.sha256()
        for split in (self.train_split, self.valid_split):
            images.update(json.dumps([split.classes, [(one.sha256, one.label) for one in split.samples]]).encode())
        return {"settings": self.settings.to_strings(), "images": images.hexdigest(), "weights": weights}

    def say(self, line: str) -> None:
        """Print `line` once for the whole job."""
        if self.group.is_main:
            print(line, flush=True)


@dataclass
class Trained:
    """A finished run: `model` is the whole network; `settings` are those it was trained with (of the best trial)."""

    model: nn.Module
    settings: Hyperparameters
    logits: Tensor  # float32 [validation images, classes], in the split's order
    history: list[dict[str, float]]  # epoch, train_loss, valid_loss, valid_accuracy, images_per_second
    trials: list[dict[str, Any]] = field(default_factory=list)
