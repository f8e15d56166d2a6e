"""What one training run works with, in either mode, and what it returns."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from training.distributed.cluster import supports_bfloat16
from training.distributed.process_group import ProcessGroup
from training.errors import TrainingError
from training.hyperparameters import HEAD_MODES, Hyperparameters
from training.known import Fitted
from training.paths import Paths
from training.split import load_split
from training.train.model import build_network, choose_architecture, load_weights, read_record, read_weights
from training.transform import Preprocessing


class StopFlag(Protocol):
    """Set by SIGTERM; training looks at it after each step."""

    @property
    def is_set(self) -> bool: ...


class TrainingContext:
    """The inputs of a run, read once. Raises TrainingError for channels, weights and settings that do not fit."""

    def __init__(self, paths: Paths, settings: Hyperparameters, group: ProcessGroup) -> None:
        self.paths, self.settings, self.group, self.device = paths, settings, group, group.device
        self.train_split, self.valid_split = load_split(paths.channel("train")), load_split(paths.channel("valid"))
        if self.train_split.classes != self.valid_split.classes:
            raise TrainingError("The channels train and valid have different classes; both must come from one Prepare.")
        self.preprocessing = Preprocessing.for_image_size(settings.image_size)
        self.pretrained = read_weights(paths.channel("weights"))  # file name and state_dict
        self.mode = resolve_mode(settings, has_weights=self.pretrained is not None)
        self.precision = choose_precision(settings.precision, self.device, mode=self.mode)
        state = self.pretrained[1] if self.pretrained else None
        self.architecture = choose_architecture(settings, len(self.train_split.classes), state)

    def build_network(self) -> nn.Module:
        """Return the network on the CPU: seeded, with the pretrained weights if there are any, nothing frozen."""
        torch.manual_seed(self.settings.seed)
        network = build_network(self.architecture)
        if self.pretrained:
            load_weights(network, self.architecture, *self.pretrained)
        return network

    def identity(self) -> dict[str, Any]:
        """Return all that must be equal for a checkpoint to be resumed: settings, images and weights."""
        weights = read_record(self.paths.channel("weights")).get("sha256")
        images = hashlib.sha256()
        for split in (self.train_split, self.valid_split):
            images.update(json.dumps([split.classes, [(one.sha256, one.label) for one in split.samples]]).encode())
        return {"settings": self.settings.to_strings(), "images": images.hexdigest(), "weights": weights}

    def labels(self) -> tuple[Tensor, Tensor]:
        """Return the classes of the training and of the validation images, int64 [images] each."""
        train, valid = (
            torch.tensor([one.label for one in split.samples]) for split in (self.train_split, self.valid_split)
        )
        return train, valid

    def log(self, line: str) -> None:
        """Print `line` once for the whole job, by rank 0."""
        if self.group.is_main:
            print(line, flush=True)


@dataclass
class TrainedModel:
    """The result of a run: the whole network, and the settings that it was trained with (the best trial's)."""

    model: nn.Module
    settings: Hyperparameters
    logits: Tensor  # float32 [validation images, classes], in the split's order
    metrics: dict[str, float]  # of this network: train_loss, valid_loss, valid_accuracy
    history: list[dict[str, float]]  # epoch, train_loss, valid_loss, valid_accuracy, images_per_second
    trials: list[dict[str, Any]] = field(default_factory=list)
    known: Fitted | None = None  # where the features are at hand; else the network is asked for them


def resolve_mode(settings: Hyperparameters, *, has_weights: bool) -> str:
    """Return one of MODES; raise TrainingError for a head on a random backbone."""
    if settings.mode == "auto":
        return "head" if has_weights else "whole"
    if settings.mode in HEAD_MODES and not has_weights:
        raise TrainingError(
            f"mode={settings.mode} needs pretrained weights, but the data set has none; use mode=whole or auto."
        )
    return settings.mode


def prepare_device(local_rank: int) -> torch.device:
    """Return this rank's GPU, made deterministic, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.deterministic = True
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def choose_precision(setting: str, device: torch.device, *, mode: str = "head") -> torch.dtype:
    """Return the precision for the hyperparameter `precision`; raise TrainingError for int8 in whole-network mode.

    "auto" is bfloat16 where GPU (from Ampere on) or CPU (AMX, AVX-512 BF16) support it, else float32.
    """
    if setting == "int8":
        if mode != "head":
            raise TrainingError("precision=int8 is for mode=head only, where the backbone does not learn; use auto.")
        return torch.int8
    if setting == "auto":
        on_gpu = device.type == "cuda"
        supported = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else supports_bfloat16()
        return torch.bfloat16 if supported else torch.float32
    return torch.bfloat16 if setting == "bfloat16" else torch.float32


def precision_name(precision: torch.dtype) -> str:
    """Return "float32", "bfloat16" or "int8"."""
    return str(precision).removeprefix("torch.")
