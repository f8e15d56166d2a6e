"""The exported model, as the server will run it."""

import json
import shutil
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
from numpy.typing import NDArray

from training.errors import TrainingError
from training.evaluate.scores import Answers
from training.split import Split
from training.transform import Preprocessing, open_rgb, to_array

FILES = ("model.json", "model.xml", "model.bin")
BATCH = 16


@dataclass(frozen=True)
class Network:
    classes: tuple[str, ...]
    how: Preprocessing
    record: dict[str, Any]
    compiled: Any  # openvino.CompiledModel


def unpack(archive: Path, folder: Path) -> None:
    """Write the three files that are needed of model.tar.gz into `folder`; raises TrainingError for a broken one."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                source = tar.extractfile(member) if name in FILES and member.isfile() else None
                if source is not None:
                    with source, (folder / name).open("wb") as target:
                        shutil.copyfileobj(source, target)
    except FileNotFoundError:
        raise TrainingError(f"{archive} is missing; the input `model` must be a training job's artifact.") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise TrainingError(f"{archive} cannot be unpacked ({error}).") from None
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise TrainingError(f"{archive} holds no {', '.join(missing)}; it is no model of this training program.")


def load(folder: Path) -> Network:
    """Compile the network for the CPU in float32, the arithmetic that is served."""
    try:
        record = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if record["format"] != 1:
            raise TrainingError(f"model.json has format {record['format']}, but this program reads format 1.")
        classes, how = tuple(record["classes"]), Preprocessing.from_dict(record["preprocessing"])
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"model.json of the model is broken ({error!r}).") from None
    try:
        compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise TrainingError(f"OpenVINO cannot load model.xml: {error}.") from None
    return Network(classes, how, record, compiled)


def answer(network: Network, split: Split) -> Answers:
    """Return the network's probabilities for every image of `split`."""
    if split.classes != network.classes:
        raise TrainingError("The model and the test split have different classes; both must come from one Prepare.")
    logits = np.concatenate([network.compiled(batch)[0] for batch in _batches(network.how, split)])  # [N, classes]
    if not np.isfinite(logits).all():
        raise TrainingError("The model answers with infinite or undefined numbers; it cannot be used.")
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    labels = np.array([sample.label for sample in split.samples], np.int64)
    return Answers(powers / powers.sum(1, keepdims=True), labels)


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
