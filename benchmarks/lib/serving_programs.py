"""Programs of the serving benchmark, each in an interpreter of its own; each prints one JSON line.

`python -m benchmarks.lib.serving_programs models PHOTOS FOLDER`: the networks that all servers hold.
`python -m benchmarks.lib.serving_programs load SETTINGS_JSON`: load on a server of this machine. Answers are looked at
after the clock has stopped: while it runs, the cores belong to the server.
`python -m benchmarks.lib.serving_programs bound PHOTOS CORE SECONDS`: the milliseconds of one picture on one core in
the server's own modules, whose environment this process has.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.lib.photographs import files
from benchmarks.lib.processes import body_of
from benchmarks.lib.servers_compared import CLASSES, best_class

if TYPE_CHECKING:  # torch is imported by the program that needs it alone
    from torch import Tensor, nn

_SAMPLES = 8  # pictures on which the export must agree with torch
_DIRECTIONS = 8  # of the features; as many as there are pictures where those are fewer
_CALIBRATION = 64  # pictures at most from which ranges of activations are taken
_TIMEOUT = 60.0  # seconds for one answer: as long as SageMaker waits


@dataclass(frozen=True)
class Settings:
    """`warm`: seconds before counting begins; `seconds`: those that are counted; `json_field` as in Server."""

    url: str
    photos: str
    connections: int
    warm: float
    seconds: float
    json_field: str = ""


@dataclass(frozen=True)
class Answer:
    """`begun` and `ended` in seconds of time.monotonic(); status 0: the connection broke."""

    picture: int
    begun: float
    ended: float
    status: int
    body: bytes


def closed_loop_load(settings: Settings) -> dict[str, Any]:
    """Return the figures of a closed loop, and the share of the cores' time that the load itself took."""
    import urllib3

    from kennel.loadtest.load import closed_loop

    pictures = files(Path(settings.photos))
    bodies = [body_of(file.read_bytes(), settings.json_field) for file in pictures]
    headers = {"Content-Type": "application/json" if settings.json_field else "application/octet-stream"}
    pool = urllib3.connection_from_url(settings.url, maxsize=settings.connections, retries=False, timeout=_TIMEOUT)
    path = urllib3.util.parse_url(settings.url).path or "/"

    def ask(connection: int, turn: int) -> Answer:
        """Each connection begins at a picture of its own."""
        picture = (connection * len(bodies) // settings.connections + turn) % len(bodies)
        begun = time.monotonic()
        try:
            response = pool.urlopen("POST", path, body=bodies[picture], headers=headers)
            status, body = response.status, response.data
        except (urllib3.exceptions.HTTPError, OSError) as error:
            status, body = 0, repr(error).encode()
            time.sleep(0.1)  # a server that is gone gets no million requests
        return Answer(picture, begun, time.monotonic(), status, body)

    begun, spent = time.monotonic(), time.process_time()
    answers = closed_loop(ask, settings.connections, settings.warm + settings.seconds)
    took, spent = time.monotonic() - begun, time.process_time() - spent
    figures = judge(answers, [file.name for file in pictures], begun + settings.warm, settings.seconds)
    return figures | {"took": took, "load_cpu": spent / took / len(os.sched_getaffinity(0))}


def judge(answers: Sequence[Answer], names: Sequence[str], since: float, seconds: float) -> dict[str, Any]:
    """Return rate (answers a second) and milliseconds of the right answers that came within the counted `seconds`.

    Of all answers, whenever they came: `errors` have another status than 200; `wrong` are no probabilities, or name
    another best class than the picture had before; `best` has each picture's class by the picture's name.
    """
    from kennel.loadtest.load import percentiles_ms

    best: dict[str, str] = {}
    failed = [answer for answer in answers if answer.status != 200]
    right = [answer for answer in answers if answer.status == 200 and _is_right(answer, names, best)]
    counted = [answer.ended - answer.begun for answer in right if since <= answer.ended <= since + seconds]
    return {
        "rate": len(counted) / seconds,
        **percentiles_ms(counted),
        "answers": len(counted),
        "errors": len(failed),
        "wrong": len(answers) - len(failed) - len(right),
        "first_error": failed[0].body[:200].decode("utf-8", "replace") if failed else None,
        "best": best,
    }


def _is_right(answer: Answer, names: Sequence[str], best: dict[str, str]) -> bool:
    try:
        label = best_class(answer.body)
    except ValueError:
        return False
    return best.setdefault(names[answer.picture], label) == label


def bound(photos: Path, core: int, seconds: float) -> dict[str, float]:
    """Return the milliseconds that one picture takes one core, the mean over whole rounds through all of them."""
    os.sched_setaffinity(0, {core})  # before OpenVINO looks for cores
    from inference import images
    from inference.__main__ import load, settings_from
    from inference.telemetry import Timings

    server = load(settings_from(os.environ))[0]
    bodies = [file.read_bytes() for file in files(photos)]
    for body in bodies[:5]:
        server.classify(body, Timings())
    decoding, resizing = _timed(images, "decode"), _timed(images, "to_pixels")
    rounds, begun = 0, time.perf_counter()
    while not rounds or time.perf_counter() - begun < seconds:
        for body in bodies:
            server.classify(body, Timings())
        rounds += 1
    each = 1000 / (rounds * len(bodies))
    total, decode, resize = (each * taken for taken in (time.perf_counter() - begun, decoding[0], resizing[0]))
    return {"total": total, "decode": decode, "resize": resize, "model": total - decode - resize}


def _timed(module: Any, name: str) -> list[float]:
    """Replace a function by one that adds up its seconds in the returned list's one number."""
    spent, function = [0.0], getattr(module, name)

    def timed(*arguments: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            spent[0] += time.perf_counter() - begun

    setattr(module, name, timed)
    return spent


def make_models(photos: Path, folder: Path) -> None:
    """Write what all servers hold: a ResNet-50 at 224 with random weights.

    FOLDER/f32/model is the artifact that training exports, FOLDER/int8/model the same, quantized; FOLDER/expected.json
    has torch's own best class of each picture.
    """
    import torch

    from training.train.export import export
    from training.transform import Preprocessing, open_rgb, to_array

    torch.manual_seed(0)
    how = Preprocessing.for_image_size(224)
    images = torch.stack([torch.from_numpy(to_array(open_rgb(file.read_bytes()), how)) for file in files(photos)])
    model = _network(images)
    with torch.inference_mode():
        best = torch.cat([model(part).argmax(1) for part in torch.split(images, 8)])  # [pictures]
    named = {file.name: CLASSES[place] for file, place in zip(files(photos), best.tolist(), strict=True)}
    (folder / "expected.json").write_text(json.dumps(named))
    record = {"format": 1, "architecture": "resnet50", "stem": "standard", "classes": CLASSES}
    record |= {"preprocessing": how.to_dict(), "temperature": 1.0, "abstain": None}
    exports = export(model, images[:_SAMPLES], best[:_SAMPLES], folder / "f32" / "model")
    (folder / "f32" / "model" / "model.json").write_text(json.dumps({**record, "exports": exports}))
    _quantize(folder / "f32" / "model", folder / "int8" / "model", images[:_CALIBRATION])


def _network(images: "Tensor") -> "nn.Module":
    """Random weights, but with statistics and a last layer that tell these pictures apart.

    Otherwise every picture would get the same class, and an answer that went to the wrong caller would look right.
    """
    import torch
    import torchvision  # type: ignore[import-untyped]
    from torch import nn

    model = torchvision.models.resnet50(weights=None, num_classes=len(CLASSES))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean over the batches
    last, model.fc = model.fc, nn.Identity()
    with torch.inference_mode():
        for part in torch.split(images, 16):
            model.train()(part)
        features = torch.cat([model.eval()(part) for part in torch.split(images, 16)])  # [pictures, width]
    centre = features.mean(0)
    # Only the directions in which pictures differ most: rounding is not to decide what a random network answers.
    _, lengths, directions = torch.linalg.svd(features - centre, full_matrices=False)
    kept = directions[:_DIRECTIONS] / lengths[:_DIRECTIONS, None] * len(images) ** 0.5  # scores of variance one
    weights = torch.randn(len(CLASSES), len(kept)) @ kept  # [classes, width]
    last.weight.data, last.bias.data = weights, -weights @ centre
    model.fc = last
    return model.requires_grad_(False)  # type: ignore[no-any-return]


def _quantize(source: Path, target: Path, images: "Tensor") -> None:
    import openvino  # type: ignore[import-untyped]

    from training.train.export import quantize

    shutil.copytree(source, target)
    network: Any = openvino.Core().read_model(source / "model.xml")
    openvino.save_model(quantize(network, images), target / "model-int8.xml")
    record = json.loads((target / "model.json").read_text())
    # Whatever random weights lose by it: here it is speed that is looked at.
    record["exports"] = record.get("exports", {}) | {"int8": {"file": "model-int8.xml", "accepted": True}}
    (target / "model.json").write_text(json.dumps(record))


if __name__ == "__main__":
    program, *arguments = sys.argv[1:]
    if program == "models":
        make_models(Path(arguments[0]), Path(arguments[1]))
    elif program == "load":
        print(json.dumps(closed_loop_load(Settings(**json.loads(arguments[0])))))
    else:
        print(json.dumps(bound(Path(arguments[0]), int(arguments[1]), float(arguments[2]))))
