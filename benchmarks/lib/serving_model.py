"""Makes the networks that all servers of the benchmark serve: `python -m benchmarks.lib.serving_model PHOTOS FOLDER`.

A ResNet-50 at 224 with random weights: in FOLDER/f32/model the artifact that training exports, in FOLDER/int8/model
the same, quantized. FOLDER/expected.json has torch's own best class of each picture.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import torchvision  # type: ignore[import-untyped]
from torch import Tensor, nn

from benchmarks.lib.photographs import files
from benchmarks.lib.servers_compared import CLASSES
from training.train.export import export, quantize
from training.transform import Preprocessing, open_rgb, to_array

HOW = Preprocessing.for_image_size(224)
_SAMPLES = 8  # pictures on which the export must agree with torch
_DIRECTIONS = 8  # of the features; as many as there are pictures where those are fewer
_CALIBRATION = 64  # pictures at most from which ranges of activations are taken


def main(photos: Path, folder: Path) -> None:
    torch.manual_seed(0)
    images = torch.stack([_image(file) for file in files(photos)])
    model = _network(images)
    with torch.inference_mode():
        best = torch.cat([model(part).argmax(1) for part in torch.split(images, 8)])
    named = {file.name: CLASSES[place] for file, place in zip(files(photos), best.tolist(), strict=True)}
    (folder / "expected.json").write_text(json.dumps(named))
    record = {"format": 1, "architecture": "resnet50", "stem": "standard", "classes": CLASSES}
    record |= {"preprocessing": HOW.to_dict(), "temperature": 1.0, "abstain": None}
    export(model, images[:_SAMPLES], folder / "f32" / "model", record)
    _quantize(folder / "f32" / "model", folder / "int8" / "model", images[:_CALIBRATION])


def _image(file: Path) -> Tensor:
    return torch.from_numpy(to_array(open_rgb(file.read_bytes()), HOW))  # [3, crop, crop]


def _network(images: Tensor) -> nn.Module:
    """Random weights, but with statistics and a last layer that tell these pictures apart.

    Otherwise every picture would get the same class, and an answer that went to the wrong caller would look right.
    """
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


def _quantize(source: Path, target: Path, images: Tensor) -> None:
    import openvino  # type: ignore[import-untyped]

    shutil.copytree(source, target)
    network: Any = openvino.Core().read_model(source / "model.xml")
    openvino.save_model(quantize(network, images), target / "model-int8.xml")
    record = json.loads((target / "model.json").read_text())
    # Whatever random weights lose by it: here it is speed that is looked at.
    record["exports"] = record.get("exports", {}) | {"int8": {"file": "model-int8.xml", "accepted": True}}
    (target / "model.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
