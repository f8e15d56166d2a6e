"""The least that one pass over the images can cost here: `python -m benchmarks.lib.lower_bound FOLDER`. One JSON line.

Decoding and resizing, and the network's forward pass, each alone at the best rate of several ways, with all cores busy.
"""

import io
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
import torch
import torchvision  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional  # type: ignore[import-untyped]

from training.transform import Preprocessing, open_rgb, to_array

HOW = Preprocessing.for_image_size(224)
SECONDS = 4.0  # that each way is tried
BATCH = 8


def main(folder: Path) -> None:
    """Images a second of each way; `folder` holds the training images."""
    files = [file.read_bytes() for file in sorted(folder.rglob("*.jpg"))[:200]]
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        decoding = {
            "Pillow": _rate(lambda: list(pool.map(_pillow, files)), len(files)),
            "torchvision": _rate(lambda: list(pool.map(_torchvision, files)), len(files)),
        }
    images = np.stack([to_array(open_rgb(file), HOW) for file in files[: BATCH * 4]])
    print(json.dumps({"decode": decoding, "forward": _forward(images)}))


def _pillow(data: bytes) -> NDArray[np.uint8]:
    """The central square of the shorter side's 224/256, resized at once."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = picture.size
    side = min(width, height) * HOW.crop / HOW.resize
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((HOW.crop, HOW.crop), Image.Resampling.BILINEAR, box=box))


def _torchvision(data: bytes) -> torch.Tensor:
    picture = torchvision.io.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    resized: torch.Tensor = functional.resize(picture, [HOW.resize], antialias=True)
    return functional.center_crop(resized, [HOW.crop])  # type: ignore[no-any-return]


def _forward(images: NDArray[np.float32]) -> dict[str, float]:
    model = torchvision.models.resnet50(weights=None).eval()
    program = torch.export.export(model, (torch.zeros(2, 3, 224, 224),), dynamic_shapes=({0: torch.export.Dim("n")},))
    network = openvino.convert_model(program)
    rates = {kind: _openvino(network, kind, images) for kind in ("f32", "bf16")}
    return rates | {"int8": _openvino(_quantized(network, images), "f32", images), "torch": _torch(model, images)}


def _quantized(network: Any, images: NDArray[np.float32]) -> Any:
    import nncf  # type: ignore[import-untyped]

    return nncf.quantize(network, nncf.Dataset([image[None] for image in images[:8]]), subset_size=8)


def _openvino(network: Any, precision: str, images: NDArray[np.float32]) -> float:
    best = 0.0
    for streams in (1, 2):
        options = {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": streams}
        queue = openvino.AsyncInferQueue(openvino.Core().compile_model(network, "CPU", options), streams)
        best = max(best, _rate(lambda queue=queue: _infer(queue, images), len(images)))  # type: ignore[misc]
    return best


def _infer(queue: Any, images: NDArray[np.float32]) -> None:
    for start in range(0, len(images), BATCH):
        queue.start_async([images[start : start + BATCH]])
    queue.wait_all()


def _torch(model: torch.nn.Module, images: NDArray[np.float32]) -> float:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).to(memory_format=torch.channels_last)
    inputs = torch.from_numpy(images).to(device, memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16):
            for part in torch.split(inputs, BATCH if device.type == "cpu" else len(images)):
                model(part).float().cpu()

    return _rate(run, len(images))


def _rate(work: Callable[[], Any], images: int) -> float:
    """Best images a second of the rounds that fit into SECONDS, after one that nobody counts."""
    work()
    times: list[float] = []
    until = time.perf_counter() + SECONDS
    while not times or time.perf_counter() < until:
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return images / min(times)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
