"""The model artifact: model.json, checked field by field, and the files of its accepted exports."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.errors import StartError

_FORMAT = 1
_LARGEST = 4096  # pixels a side: an absurd size is a broken file, not a large model
_LARGEST_REFERENCE = 32 << 20  # bytes, ten times what training writes


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input: sizes in pixels, mean and std of values in 0..1, in RGB order."""

    resize: int
    crop: int
    interpolation: Image.Resampling
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Known:
    """Training images in feature space; `threshold` is the least mean similarity to the nearest of a known picture."""

    rows: NDArray[np.float32]  # [images, dimensions], of length 1 each
    neighbours: int  # that count as the nearest
    threshold: float


@dataclass(frozen=True)
class Artifact:
    """What the server needs of model.json."""

    classes: tuple[str, ...]  # in the order of the network's outputs
    preprocessing: Preprocessing
    files: Mapping[str, Path]  # of the exports that training accepted; model.bin lies beside model.xml
    temperature: float = 1.0  # divides the logits before the softmax
    threshold: float | None = None  # the best probability below which the answer is not sure
    known: Known | None = None  # what a picture must resemble to show any of the classes

    def check_outputs(self, file: str, shapes: Sequence[Sequence[Any]]) -> None:
        """Raise StartError unless these are the shapes of logits and perhaps embedding; open sizes are no numbers."""
        if not 1 <= len(shapes) <= 2 or not _fits(shapes[0], len(self.classes)):
            sizes = [[str(size) if isinstance(size, int) else "?" for size in shape] for shape in shapes]
            found = ", ".join(f"[{','.join(shape)}]" for shape in sizes)
            names = len(self.classes)
            raise StartError(f"model.json names {names} classes, but the output of {file} has the shape {found}.")
        if self.known and not (len(shapes) == 2 and _fits(shapes[1], self.known.rows.shape[1])):
            size = self.known.rows.shape[1]
            raise StartError(
                f"The reference of known pictures has {size} dimensions, but {file} has no such embedding."
            )


def _fits(shape: Sequence[Any], width: int) -> bool:
    """Return whether the shape can be [1, width]."""
    sizes = zip(shape, (1, width), strict=False)
    return len(shape) == 2 and all(not isinstance(found, int) or found == size for found, size in sizes)


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
        _known(folder, facts.get("known")),
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


def _known(folder: Path, facts: Any) -> Known | None:
    """Return the reference, or None where the model has none or no threshold for it: every picture is then known."""
    if facts is None:
        return None
    found = facts if isinstance(facts, dict) else {}
    name, neighbours, threshold = found.get("file"), found.get("neighbours"), found.get("threshold", "absent")
    if threshold is None:
        return None
    is_number = type(threshold) in (int, float) and -1 <= threshold <= 1
    if not (isinstance(name, str) and name and Path(name).name == name and type(neighbours) is int and is_number):
        raise StartError(
            "model.json: known must be null or name a file, a number of neighbours and a threshold from -1 to 1 "
            f"or null, not {str(facts)[:200]}."
        )
    _require(folder / name)
    return Known(_reference(folder / name, neighbours), neighbours, float(threshold))


def _reference(file: Path, neighbours: int) -> NDArray[np.float32]:
    """Return [images, dimensions]; nothing of the file is believed before its size has been looked at."""
    reason = "it is too large"
    if file.stat().st_size <= _LARGEST_REFERENCE:
        try:
            # Mapped: a shape that is larger than the file is an error, and takes no memory.
            stored = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, MemoryError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
        else:
            if isinstance(stored, np.ndarray) and stored.dtype in (np.float16, np.float32) and stored.ndim == 2:
                rows = stored.astype(np.float32)
                if 1 <= neighbours <= len(rows) and rows.shape[1] and np.isfinite(rows).all():
                    return rows
            reason = f"it must hold {neighbours} rows or more of finite numbers in float16"
    raise StartError(f"{file} cannot be used as the reference of known pictures: {reason}.")
