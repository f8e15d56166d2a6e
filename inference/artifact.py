"""The model artifact: model.json, checked field by field, and the files of its accepted exports."""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from inference.errors import StartError

_FORMAT = 1
_LARGEST = 4096  # pixels a side: an absurd size is a broken file, not a large model


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input: sizes in pixels, mean and std of values in 0..1, in RGB order."""

    resize: int
    crop: int
    interpolation: Image.Resampling
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Artifact:
    """What the server needs of model.json."""

    classes: tuple[str, ...]  # in the order of the network's outputs
    preprocessing: Preprocessing
    files: Mapping[str, Path]  # of the exports that training accepted; model.bin lies beside model.xml
    temperature: float = 1.0  # divides the logits before the softmax
    threshold: float | None = None  # the best probability below which a picture shows none of the classes


def load(folder: Path) -> Artifact:
    """Return the artifact; raise StartError when a file is missing or says something impossible."""
    _require(folder / "model.json")
    facts = _read(folder / "model.json")
    if facts.get("format") != _FORMAT:
        raise StartError(f"model.json has format {facts.get('format')!r}; this server reads format {_FORMAT}.")
    return Artifact(
        _classes(facts.get("classes")),
        _preprocessing(facts.get("preprocessing")),
        _files(folder, facts.get("exports", {"float32": {"file": "model.xml", "accepted": True}})),
        _temperature(facts.get("temperature", 1.0)),
        _threshold(facts.get("abstain")),
    )


def _require(file: Path) -> None:
    if not file.is_file():
        raise StartError(f"{file} is missing; unpack a model.tar.gz of Kennel's training job into {file.parent}.")


def _files(folder: Path, exports: Any) -> dict[str, Path]:
    """Return key -> file of the accepted exports; raise StartError when one is missing."""
    known = exports.items() if isinstance(exports, dict) else ()
    accepted = {key: facts for key, facts in known if isinstance(facts, dict) and facts.get("accepted") is True}
    names = {key: str(facts.get("file", "")) for key, facts in accepted.items()}
    if not names or not all(name and Path(name).name == name for name in names.values()):
        raise StartError("model.json: exports must hold one accepted export or more, each with the name of its file.")
    files = {key: folder / name for key, name in names.items()}
    for file in files.values():
        _require(file)
        if file.suffix == ".xml":
            _require(file.with_suffix(".bin"))
    return files


def _read(file: Path) -> dict[str, Any]:
    try:
        facts = json.loads(file.read_text("utf-8"))
    # UnicodeDecodeError and JSONDecodeError are ValueErrors; deep nesting ends in RecursionError.
    except (OSError, ValueError, RecursionError) as error:
        raise StartError(f"{file} cannot be read as JSON: {error}.") from error
    return facts if isinstance(facts, dict) else {}


def _classes(value: Any) -> tuple[str, ...]:
    good = isinstance(value, list) and len(value) > 0 and all(isinstance(name, str) and name for name in value)
    if not good or len(set(value)) != len(value):
        raise StartError("model.json: classes must be a list of distinct, non-empty names.")
    return tuple(value)


def _preprocessing(value: Any) -> Preprocessing:
    facts = value if isinstance(value, dict) else {}
    resize, crop = _size(facts, "resize"), _size(facts, "crop")
    if crop > resize:
        raise StartError(f"model.json: preprocessing.crop {crop} must not be larger than resize {resize}.")
    return Preprocessing(resize, crop, _interpolation(facts), _triple(facts, "mean"), _triple(facts, "std", above=0.0))


def _size(facts: dict[str, Any], name: str) -> int:
    value = facts.get(name)
    if type(value) is not int or not 1 <= value <= _LARGEST:
        raise StartError(
            f"model.json: preprocessing.{name} must be a whole number from 1 to {_LARGEST}, not {value!r}."
        )
    return value


def _interpolation(facts: dict[str, Any]) -> Image.Resampling:
    names = {method.name.lower(): method for method in Image.Resampling}
    value = facts.get("interpolation")
    if not isinstance(value, str) or value not in names:
        raise StartError(f"model.json: preprocessing.interpolation must be one of {', '.join(names)}, not {value!r}.")
    return names[value]


def _triple(facts: dict[str, Any], name: str, above: float = -math.inf) -> tuple[float, float, float]:
    value = facts.get(name)
    numbers = value if isinstance(value, list) else []
    good = [float(number) for number in numbers if type(number) in (int, float) and above < number < math.inf]
    if not len(good) == len(numbers) == 3:
        least = "" if math.isinf(above) else f" above {above:g}"
        raise StartError(f"model.json: preprocessing.{name} must be three finite numbers{least}, not {value!r}.")
    return (good[0], good[1], good[2])


def _temperature(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:
        raise StartError(f"model.json: temperature must be a finite number above 0, not {value!r}.")
    return float(value)


def _threshold(abstain: Any) -> float | None:
    """Return the threshold, or None without `abstain`: the model then answers for every picture."""
    if abstain is None:
        return None
    value = abstain.get("threshold") if isinstance(abstain, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise StartError(f"model.json: abstain must be null or hold a threshold from 0 to 1, not {abstain!r}.")
    return float(value)
