"""Networks from torchvision with a new head, an input stem that fits small images, and pretrained weights."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torchvision  # type: ignore[import-untyped]
from torch import Tensor, nn

from training.errors import TrainingError
from training.hyperparameters import MODELS, Hyperparameters
from training.transform import SMALL

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """What it takes to build the network again; `stem` is "standard" or, for images up to 64 pixels, "small".

    Torchvision's networks halve their input five times, so of 32 pixels one would be left to look at. The small stem
    begins with stride 1 (ResNets: with 3 x 3 in place of 7 x 7). The pooling behind it stays: without it, as in He et
    al.'s CIFAR nets, a step costs four times as much, which two CPU cores do not have.
    """

    name: str
    stem: str
    classes: int


def choose(settings: Hyperparameters, classes: int, weights: State | None) -> Architecture:
    """Return the architecture; ResNet weights keep the stem that they were trained with, whatever the image size."""
    stem = "small" if settings.image_size <= SMALL else "standard"
    if weights is not None and "conv1.weight" in weights:
        stem = "small" if weights["conv1.weight"].shape[-1] == 3 else "standard"
    return Architecture(settings.model, stem, classes)


def build(architecture: Architecture) -> nn.Module:
    """Return the network with random weights, on the current default device: [N, 3, side, side] -> [N, classes]."""
    model: nn.Module = torchvision.models.get_model(architecture.name, weights=None, num_classes=architecture.classes)
    if architecture.stem == "small":
        if architecture.name.startswith("resnet"):
            model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        else:
            _first_convolution(model).stride = (1, 1)
    return model


def head_of(model: nn.Module) -> nn.Linear:
    """Return the last linear layer, the one that knows the classes."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return linear[-1]


def load_weights(model: nn.Module, architecture: Architecture, name: str, state: State) -> None:
    """Copy `state` into `model`; the head only if it fits. Raises TrainingError if anything else does not."""
    own = model.state_dict()
    head = {key for key, value in own.items() if _is_head(model, key)}
    keeps_head = all(key in state and state[key].shape == own[key].shape for key in head)
    wanted = own.keys() if keeps_head else own.keys() - head
    wrong = sorted(key for key in wanted if key not in state or state[key].shape != own[key].shape)
    wrong += sorted(state.keys() - own.keys())
    if wrong:
        others = [other for other in MODELS if _fits(other, state)]
        hint = f"they fit model={others[0]}" if others else "they fit none of the known models"
        raise TrainingError(
            f"The weights {name} do not fit {architecture.name} (first difference: {wrong[0]}); {hint}."
        )
    model.load_state_dict({**own, **{key: state[key] for key in wanted}})


def resolve_mode(settings: Hyperparameters, weights: bool) -> str:
    """Return "head" or "whole"; raises TrainingError for a head on a random backbone."""
    if settings.mode == "auto":
        return "head" if weights else "whole"
    if settings.mode == "head" and not weights:
        raise TrainingError("mode=head needs pretrained weights, but the data set has none; use mode=whole or auto.")
    return settings.mode


def _first_convolution(model: nn.Module) -> nn.Conv2d:
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d))


def _is_head(model: nn.Module, key: str) -> bool:
    head = head_of(model)
    return any(
        key == f"{name}.{part}"
        for name, module in model.named_modules()
        if module is head
        for part in ("weight", "bias")
    )


def _fits(name: str, state: State) -> bool:
    with torch.device("meta"):
        model = build(Architecture(name, "standard", 1000))
    shapes = {key: value.shape for key, value in model.state_dict().items() if not _is_head(model, key)}
    return all(key in state and (state[key].shape == shape or key == "conv1.weight") for key, shape in shapes.items())
