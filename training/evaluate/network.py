"""The exported model, as the server will run it."""

import json
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
from numpy.typing import NDArray

from training.cpu import supports_bfloat16
from training.errors import TrainingError
from training.evaluate.artifact import INT8
from training.evaluate.scores import Answers
from training.split import Split
from training.transform import Preprocessing, open_rgb, to_array

BATCH = 16
_NAMED = 3  # classes in an error's text


@dataclass(frozen=True)
class Network:
    classes: tuple[str, ...]
    how: Preprocessing
    temperature: float
    threshold: float | None  # confidence below which the answer is "none of these"
    record: dict[str, Any]
    compiled: Mapping[str, Any]  # openvino.CompiledModel by the precision in which it may be served; float32 first


def load(folder: Path) -> Network:
    """Compile the network for the CPU in each precision that it offers and this machine multiplies.

    int8 is among them wherever it is offered: every processor has it, if not the instructions that make it fast.
    """
    try:
        record = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if record["format"] != 1:
            raise TrainingError(f"model.json has format {record['format']}, but this program reads format 1.")
        classes, how = tuple(record["classes"]), Preprocessing.from_dict(record["preprocessing"])
        temperature = float(record.get("temperature", 1.0))
        threshold = float(record["abstain"]["threshold"]) if record.get("abstain") else None
        int8 = bool((record.get("exports") or {}).get("int8", {}).get("accepted"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(f"model.json of the model is broken ({error!r}).") from None
    if not 0 < temperature < math.inf:
        raise TrainingError(f"model.json of the model is broken: a temperature must be above 0, not {temperature}.")
    compiled = {"float32": _compile(folder / "model.xml", "f32")}
    if supports_bfloat16():
        compiled["bfloat16"] = _compile(folder / "model.xml", "bf16")
    if int8:
        compiled["int8"] = _compile(folder / INT8[0], "f32")  # of what stays in floating point
    return Network(classes, how, temperature, threshold, record, compiled)


def _compile(file: Path, hint: str) -> Any:
    try:
        return openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    except RuntimeError as error:
        raise TrainingError(f"OpenVINO cannot load {file.name}: {error}.") from None


def answer(network: Network, split: Split) -> dict[str, Answers]:
    """Return the answers of each precision for every image of `split`; the logits are looked at batch by batch."""
    if split.classes != network.classes:
        raise TrainingError(_difference(network.classes, split.classes))
    labels = np.array([sample.label for sample in split.samples], np.int64)
    parts: dict[str, list[Answers]] = {precision: [] for precision in network.compiled}
    start = 0
    for batch in _batches(network.how, split):
        for precision, compiled in network.compiled.items():
            logits = _logits(compiled, batch, len(network.classes))
            parts[precision].append(
                Answers.from_logits(logits, labels[start : start + len(batch)], network.temperature)
            )
        start += len(batch)
    return {precision: Answers.join(some) for precision, some in parts.items()}


def _logits(compiled: Any, batch: NDArray[np.float32], classes: int) -> NDArray[Any]:
    logits: NDArray[Any] = compiled(batch)[0]  # [batch, classes]
    if logits.shape != (len(batch), classes):
        raise TrainingError(f"The model answers {list(logits.shape)} for {len(batch)} images of {classes} classes.")
    if not np.isfinite(logits).all():
        raise TrainingError("The model answers with infinite or undefined numbers; it cannot be used.")
    return logits


def _difference(known: tuple[str, ...], tested: tuple[str, ...]) -> str:
    unknown, absent = (sorted(set(one) - set(other)) for one, other in ((tested, known), (known, tested)))
    named = [
        f"{what} {', '.join(repr(name) for name in names[:_NAMED])}{' ...' if len(names) > _NAMED else ''}"
        for what, names in (("the model does not know", unknown), ("the test split lacks", absent))
        if names
    ]
    which = "; ".join(named) or "the same ones in another order"
    return f"The model and the test split have different classes ({which}); both must come from one Prepare."


def _batches(how: Preprocessing, split: Split) -> Iterator[NDArray[np.float32]]:
    """Yield float32 [batch, 3, crop, crop]; one batch is decoded at a time."""

    def one(index: int) -> NDArray[np.float32]:
        try:
            return to_array(open_rgb(split.read(index)), how)
        except OSError as error:
            raise TrainingError(f"{split.samples[index].name} cannot be decoded ({error}).") from error

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(split), BATCH):
            yield np.stack(list(pool.map(one, range(start, min(start + BATCH, len(split))))))
