"""A split and a model small enough to be made here, whose answers are known."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
from openvino import opset13 as ops
from PIL import Image

from training.passport import write_passport
from training.split import Sample, Split
from training.transform import Preprocessing

CLASSES = ("green", "red")
Labelled = tuple[int, bytes]  # number of the class, encoded image


def solid(red: int, green: int, side: int = 20) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (red, green, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_split(folder: Path, images: Sequence[Labelled], classes: tuple[str, ...] = CLASSES) -> Split:
    """Write a test split of one shard, as Prepare does."""
    folder.mkdir(parents=True, exist_ok=True)
    samples, place = [], 0
    for number, (label, data) in enumerate(images):
        name = f"{classes[label]}/{number}.png"
        samples.append(Sample("shard-00000.tar", place, len(data), label, name, ""))
        place += len(data)
    (folder / "shard-00000.tar").write_bytes(b"".join(data for _, data in images))
    split = Split(folder, "test", classes, tuple(samples), "ab12")
    split.write_index()
    return split


def write_network(file: Path, scale: float, *, embedding: bool = False) -> None:
    """A network that answers `scale` times the mean green and the mean red (0 to 1); the first is the first class.

    Its embedding, if it has one, is the mean colour.
    """
    image = ops.parameter([-1, 3, 32, 32], np.float32, name="image")
    means = ops.reduce_mean(image, np.array([2, 3]), keep_dims=False)  # [N, 3]
    logits = ops.multiply(ops.gather(means, np.array([1, 0]), np.array(1)), np.float32(scale))
    outputs = [logits, means] if embedding else [logits]
    openvino.save_model(openvino.Model(outputs, [image], "means"), file, compress_to_fp16=False)


def write_model(
    folder: Path,
    *,
    scale: float = 10.0,
    int8: float | None = None,
    passport: bool = True,
    reference: Sequence[Sequence[float]] = (),
    **record: Any,
) -> dict[str, Any]:
    """The artifact of such a network; `int8` is the scale of the one in the int8 files, None for no such files.

    `reference` are the mean colours that it knows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_network(folder / "model.xml", scale, embedding=bool(reference))
    if int8 is not None:
        write_network(folder / "model-int8.xml", int8, embedding=bool(reference))
    if reference:
        np.save(folder / "known.npy", np.array(reference, np.float16))
    how = Preprocessing(32, 32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).to_dict()
    whole = {
        "format": 1,
        "architecture": "means",
        "classes": CLASSES,
        "preprocessing": how,
        "hyperparameters": {"model": "means"},
        "metrics": {"valid_accuracy": 0.9},
        "data": {"fingerprint": "ab12"},
        "seed": 3,
        **record,
    }
    (folder / "model.json").write_text(json.dumps(whole), "utf-8")
    (folder / "weights.pt").write_bytes(b"weights")
    if passport:
        write_passport(folder, whole, image="registry/image:1")
    return whole


def pack(folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, ".")
