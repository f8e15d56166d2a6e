"""Networks from torchvision, with an input stem that fits small images, and the pretrained weights for them."""

import argparse
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


_WRAPPERS = ("state_dict", "model")  # of Lightning and of many recipes; of torchvision's own
_PREFIXES = re.compile(r"^(module\.|_orig_mod\.)+")  # of DataParallel and of torch.compile
_ADVICE = "save it with torch.save(model.state_dict(), FILE)"


def read_record(folder: Path) -> dict[str, Any]:
    """Return Prepare's weights.json: `file` (None where there are no weights) and its `sha256`."""
    record = folder / "weights.json"
    if not record.is_file():
        raise TrainingError(f"{record} is missing; the weights channel must come from Prepare.")
    content: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    return content


def read_weights(folder: Path) -> tuple[str, dict[str, Tensor]] | None:
    """Return file name and state_dict of the weights channel, or None where weights.json names no file.

    Raise TrainingError for a file that holds no names and tensors.
    """
    name = read_record(folder).get("file")
    if not name:
        return None
    state = _read_file(folder / Path(name).name)
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise TrainingError(f"The weights {name} hold no state_dict (names and tensors); {_ADVICE}.")
    return name, {_PREFIXES.sub("", key): value for key, value in state.items()}


def load_weights(network: nn.Module, architecture: Architecture, name: str, state: State) -> None:
    """Copy `state` into `network`, the head only if it has the same shape; raise TrainingError if the rest differs."""
    own = network.state_dict()
    head = _head_keys(network)
    same_head = all(key in state and state[key].shape == own[key].shape for key in head)
    loaded = own.keys() if same_head else own.keys() - head
    wrong = sorted(key for key in loaded if key not in state or state[key].shape != own[key].shape)
    wrong += sorted(state.keys() - own.keys())
    if wrong:
        fitting = [model for model in MODELS if _fits(model, state)]
        hint = f"they fit model={fitting[0]}" if fitting else "they fit none of the known models"
        raise TrainingError(
            f"The weights {name} do not fit {architecture.name} (first difference: {wrong[0]}); {hint}."
        )
    network.load_state_dict({**own, **{key: state[key] for key in loaded}})


def _read_file(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except SafetensorError as error:
            raise TrainingError(f"The weights file {file.name} is no whole safetensors file ({error}).") from None
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # in the checkpoints of torchvision's recipes
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # weights_only refuses to run code that the file contains
        problem = "holds more than names and tensors, as a whole pickled model does"
    # The unpickler raises anything on foreign bytes.
    except Exception as error:
        problem = f"is cut short, or none of torch's ({type(error).__name__})"
    raise TrainingError(f"The weights file {file.name} {problem}; {_ADVICE}.")


def _head_keys(network: nn.Module) -> set[str]:
    return {f"{head_name(network)}.{part}" for part in ("weight", "bias")}


def _fits(model: str, state: State) -> bool:
    with torch.device("meta"):
        network = build_network(Architecture(model, "standard", 1000))
    head = _head_keys(network)
    shapes = {key: value.shape for key, value in network.state_dict().items() if key not in head}
    return all(key in state and (state[key].shape == shape or key == "conv1.weight") for key, shape in shapes.items())
