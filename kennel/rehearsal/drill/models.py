"""The models of a drill: a small real one, and others made bad in the artifact or in a copy of the server's code."""

import io
import json
import os
import shutil
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from kennel.errors import ROOT

CLASSES = ("red", "green", "blue")
# Seconds that each copy of the server takes for a picture beyond the small network's own, about ResNet-50's.
_PACE = 0.04
_CROP = 32  # pixels
# Appended to the copy's app.py: what is done with a request before the sound server gets it.
_FAULT = """

import os
import time

_asked, _hoard = 0, []
_sound_answer, _sound_build = _Routes._answer, build


async def _faulty_answer(self, request, timings):
    global _asked
    _asked += 1
    {fault}
    return await _sound_answer(self, request, timings)


class _Paced:
    def __init__(self, classifier):
        self._classifier = classifier

    def __getattr__(self, name):
        return getattr(self._classifier, name)

    def classify(self, body, timings):
        time.sleep({pace})
        return self._classifier.classify(body, timings)


def build(classifier, **options):
    return _sound_build(_Paced(classifier), **options)


_Routes._answer = _faulty_answer
"""
# 16 MiB more with each request; at 128 MiB the process ends at once, as when the kernel ends one without memory.
_HOARD = '_hoard.append(b"x" * 2**24); len(_hoard) == 8 and os._exit(137)'


GOOD = "good"


@dataclass(frozen=True)
class Released:
    """What a case of the drill releases."""

    name: str

    @property
    def is_bad(self) -> bool:
        return self.name != GOOD

    @property
    def names(self) -> set[str]:
        """Return the names by which `--only` finds it."""
        return {self.name}


@dataclass(frozen=True)
class Model(Released):
    """`network`: sound, wrong labels, nan or garbage; `fault`: a line of Python in the server, once a request.

    `answer_seconds`: how long the endpoint waits for an answer; a model that hangs gets less than SageMaker's 60.
    """

    network: str = "sound"
    fault: str = "pass"
    answer_seconds: float = 60.0


# Deviations from mid-grey, of each colour's mean, and from its lightest to its darkest pixel.
_NEARLY_GREY = 0.02
MODELS = (
    Model("always an error", fault='raise RuntimeError("a drill")'),
    Model("slow", fault="await asyncio.sleep(4)"),
    Model("wrong labels", network="wrong labels"),
    Model("garbage archive", network="garbage"),
    Model("memory hog", fault=_HOARD),
    Model("hang", fault="await asyncio.sleep(3600)", answer_seconds=1.0),
    Model("NaN", network="nan"),
    Model("crash at the tenth request", fault="_asked == 10 and os._exit(9)"),
    Model("good on the first hundred", fault='assert _asked <= 100, "a drill"'),
    Model(GOOD),
)


def write_server(model: Model, folder: Path) -> Path:
    """Copy the server's code into `folder` with the fault, and return what PYTHONPATH must name."""
    shutil.copytree(ROOT / "inference", folder / "inference", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "inference" / "app.py").open("a", encoding="utf-8") as file:
        file.write(_FAULT.format(fault=model.fault, pace=_PACE))
    return folder


def archive(model: Model, folder: Path) -> bytes:
    """Return the model.tar.gz, packed from `folder`."""
    if model.network == "garbage":
        return os.urandom(4096)
    folder.mkdir(parents=True)
    _write_network(folder / "model.xml", with_nan=model.network == "nan")
    classes = CLASSES if model.network != "wrong labels" else (*CLASSES[1:], CLASSES[0])
    preprocessing = {"resize": 40, "crop": _CROP, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.2] * 3}
    facts = {"format": 1, "architecture": "mean colour", "classes": classes, "preprocessing": preprocessing}
    (folder / "model.json").write_text(json.dumps(facts))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(folder, ".")
    return packed.getvalue()


def _write_network(file: Path, *, with_nan: bool) -> None:
    """Write a network whose logits [3] are a picture's mean colour; `with_nan` only a sheet of mid-grey has numbers.

    The server warms up with one, so that it becomes healthy.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would report to its makers
    import numpy as np
    import openvino  # type: ignore[import-untyped]

    ops = openvino.opset13
    image = ops.parameter([-1, 3, _CROP, _CROP], np.float32)
    image.output(0).get_tensor().set_names({"image"})
    logits = ops.reduce_mean(image, [2, 3], False)
    if with_nan:
        contrast = ops.subtract(ops.reduce_max(image, [2, 3], False), ops.reduce_min(image, [2, 3], False))
        far = ops.add(ops.multiply(logits, logits), ops.multiply(contrast, contrast))
        logits = ops.log(ops.subtract(np.float32(_NEARLY_GREY**2), far))
    openvino.save_model(openvino.Model([logits], [image]), file)


def pictures() -> list[tuple[bytes, str]]:
    """Return JPEG files of one colour, each with its label."""
    from PIL import Image

    found = []
    for label in CLASSES:
        file = io.BytesIO()
        Image.new("RGB", (160, 120), label).save(file, "JPEG")
        found.append((file.getvalue(), label))
    return found
