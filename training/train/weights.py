"""Reads the weights channel, whatever its file turns out to be."""

import argparse
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.errors import TrainingError

_WRAPPERS = ("state_dict", "model")  # of Lightning and of many recipes; of torchvision's own
_PREFIXES = re.compile(r"^(module\.|_orig_mod\.)+")  # of DataParallel and of torch.compile
_ADVICE = "save it with torch.save(model.state_dict(), FILE)"


def read_record(folder: Path) -> dict[str, Any]:
    """Return what Prepare wrote of the weights: `file` (None where there are none) and its `sha256`."""
    record = folder / "weights.json"
    if not record.is_file():
        raise TrainingError(f"{record} is missing; the weights channel must come from Prepare.")
    content: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    return content


def read_weights(folder: Path) -> tuple[str, dict[str, Tensor]] | None:
    """Return name and state of the weights channel, or None where weights.json says that there are none.

    Raises TrainingError for anything that holds no names and tensors.
    """
    name = read_record(folder).get("file")
    if not name:
        return None
    state = _load(folder / Path(name).name)
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise TrainingError(f"The weights {name} hold no state_dict (names and tensors); {_ADVICE}.")
    return name, {_PREFIXES.sub("", key): value for key, value in state.items()}


def _load(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return _load_safetensors(file)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # in the checkpoints of torchvision's recipes
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # weights_only refuses to run what the file brings along
        problem = "holds more than names and tensors, as a whole pickled model does"
    # Foreign bytes raise whatever they lead the unpickler into.
    except Exception as error:
        problem = f"is cut short, or none of torch's ({type(error).__name__})"
    raise TrainingError(f"The weights file {file.name} {problem}; {_ADVICE}.")


def _load_safetensors(file: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise TrainingError(f"The weights file {file.name} is no whole safetensors file ({error}).") from None
