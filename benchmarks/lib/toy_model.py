"""A model so small that what it must answer can be worked out without it, and pictures to ask it about.

Its logits are the mean colour of a picture times a table. The truth is taken with training's transform and numpy: no
part of what answers takes part in it.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import inference  # noqa: F401  (keeps OpenVINO from reporting to its makers when it is imported after this)
from training.transform import Preprocessing, open_rgb, to_array

CLASSES = ["red", "green", "blue", "cyan", "magenta", "yellow", "white", "black"]
TOLERANCE = 0.02  # of a probability: bfloat16's rounding stays well below
_APART = 4 * TOLERANCE  # two pictures' answers at least: one that went to the wrong caller shows
_HOW = Preprocessing.for_image_size(64)
_TABLE = np.random.default_rng(4).normal(0, 1.2, (3, len(CLASSES))).astype(np.float32)  # [colours, classes]


@dataclass(frozen=True)
class Picture:
    """`probabilities` [classes], or the `refusal` (code, status) that it must get."""

    body: bytes
    probabilities: NDArray[np.float64] | None = None
    refusal: tuple[str, int] | None = None

    def fits(self, answer: Any) -> bool:
        """Whether these are the probabilities of this picture, in the order of the classes."""
        given = answer.get("probabilities") if isinstance(answer, dict) else None
        if self.probabilities is None or not isinstance(given, list) or len(given) != len(self.probabilities):
            return False
        best = CLASSES[int(self.probabilities.argmax())]
        near = bool(np.abs(np.asarray(given, np.float64) - self.probabilities).max() <= TOLERANCE)
        return near and answer.get("label") == best == answer["predictions"][0]["label"]


def write_artifact(folder: Path) -> Path:
    """Write model.json, model.xml and model.bin as docs/contracts/model-artifact.md has them."""
    import openvino  # type: ignore[import-untyped]

    ops = openvino.opset13
    folder.mkdir(parents=True)
    image = ops.parameter([-1, 3, _HOW.crop, _HOW.crop], np.float32)
    image.output(0).get_tensor().set_names({"image"})
    logits = ops.matmul(ops.reduce_mean(image, [2, 3], False), _TABLE, False, False)
    openvino.save_model(openvino.Model([logits], [image]), folder / "model.xml", compress_to_fp16=False)
    facts = {"format": 1, "architecture": "mean colour", "classes": CLASSES, "preprocessing": _HOW.to_dict()}
    (folder / "model.json").write_text(json.dumps(facts))
    return folder


def pictures(count: int) -> list[Picture]:
    """Return JPEG files of one colour with noise, no two with like answers; the last is cut short, to be refused."""
    chance = np.random.default_rng(0)
    found: list[Picture] = []
    known = np.empty((0, len(CLASSES)))
    while len(found) < count - 1:
        body, probabilities = _picture(chance)
        best, next_best = np.sort(probabilities)[:-3:-1]
        if best - next_best > _APART and (np.abs(known - probabilities).max(1) > _APART).all():
            found.append(Picture(body, probabilities))
            known = np.vstack([known, probabilities])
    body = found[0].body
    return [*found, Picture(body[: len(body) // 2], refusal=("not_an_image", 400))]


def _picture(chance: np.random.Generator) -> tuple[bytes, NDArray[np.float64]]:
    noise = chance.normal(0, 12, (120, 160, 3))
    pixels = (chance.uniform(0, 255, 3) + noise).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    logits = to_array(open_rgb(file.getvalue()), _HOW).mean((1, 2), np.float64) @ _TABLE
    odds = np.exp(logits - logits.max())
    return file.getvalue(), odds / odds.sum()
