"""Networks from torchvision with an input stem that fits small images and one output per class."""

from collections.abc import Mapping
from dataclasses import dataclass

import torchvision  # type: ignore[import-untyped]
from torch import Tensor, nn

from training.hyperparameters import Hyperparameters
from training.transform import SMALL

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """What it takes to build the network again; `stem` is "standard" or, for images up to 64 pixels, "small".

    Torchvision's networks halve their input five times, which leaves one of 32 pixels. The small stem
    begins with stride 1 (ResNets: with 3 x 3 in place of 7 x 7). The pooling behind it stays: without it, as in He et
    al.'s CIFAR nets, a step costs four times as much, which two CPU cores do not have.
    """

    name: str  # one of training.hyperparameters.MODELS
    stem: str
    classes: int


def choose_architecture(settings: Hyperparameters, classes: int, pretrained: State | None) -> Architecture:
    """Return the architecture; ResNet weights keep the stem that they were trained with, whatever the image size."""
    stem = "small" if settings.image_size <= SMALL else "standard"
    if pretrained is not None and "conv1.weight" in pretrained:
        stem = "small" if pretrained["conv1.weight"].shape[-1] == 3 else "standard"
    return Architecture(settings.model, stem, classes)


def build_network(architecture: Architecture) -> nn.Module:
    """Return the network with random weights on the default device: [N, 3, side, side] -> logits [N, classes]."""
    network: nn.Module = torchvision.models.get_model(architecture.name, weights=None, num_classes=architecture.classes)
    if architecture.stem == "small":
        if architecture.name.startswith("resnet"):
            network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
            nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        else:
            first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
            first.stride = (1, 1)
    return network


def head_name(network: nn.Module) -> str:
    """Return the name of the last linear layer, the one that has an output per class."""
    names: list[str] = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return names[-1]


def remove_head(network: nn.Module) -> tuple[str, int]:
    """Replace the head by the identity, so that the network returns features; return its name and their width."""
    name = head_name(network)
    head = network.get_submodule(name)
    assert isinstance(head, nn.Linear)
    network.set_submodule(name, nn.Identity())
    return name, head.in_features
