"""Programs of the training benchmark: `python -m benchmarks.lib.training_programs NAME JSON`. One JSON line.

head: the recipe that most people write for a head on a frozen backbone: every image goes through the whole network in
every epoch, in float32.
whole: the defaults of torchvision's references/classification (SGD with momentum 0.9, learning rate 0.1, weight decay
1e-4, float32, random resized crops of 224 and flips through Pillow), with one loader process for each core.
weights: a file to start from where the pretrained weights cannot be had.
bound: the least that one pass over the images can cost: decoding with resizing, and the forward pass, each alone at the
best rate of several ways, with all cores busy.
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
import torch
import torchvision  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torchvision.transforms import v2  # type: ignore[import-untyped]

from training.transform import Preprocessing, open_rgb, to_array

NORMALIZE = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TO_TENSOR = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), NORMALIZE])
TRAIN = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(0.5), TO_TENSOR])
VALID = v2.Compose([v2.Resize(256), v2.CenterCrop(224), TO_TENSOR])
BLOCK_SCALE, STATISTICS_IMAGES = 0.2, 64
HOW = Preprocessing.for_image_size(224)
BOUND_SECONDS = 4.0  # that each way is tried
BOUND_BATCH = 8


def head(settings: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """`settings`: data (folder with train/ and valid/), weights, epochs, batch_size, learning_rate."""
    started = time.perf_counter()
    train = _loader(settings, "train", TRAIN, shuffle=True)
    valid = _loader(settings, "valid", VALID)
    model = torchvision.models.resnet50(weights=None)
    model.load_state_dict(torch.load(settings["weights"], weights_only=True))
    model.requires_grad_(False)
    model.fc = nn.Linear(model.fc.in_features, len(train.dataset.classes))
    model.to(device)
    optimizer = torch.optim.AdamW(model.fc.parameters(), lr=settings["learning_rate"])
    start_seconds, epoch_seconds, accuracies = time.perf_counter() - started, [], []
    for _ in range(settings["epochs"]):
        begun = time.perf_counter()
        model.train()
        for images, labels in train:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        accuracies.append(_accuracy(model, valid, device))
        epoch_seconds.append(time.perf_counter() - begun)
    return {"start_seconds": start_seconds, "epoch_seconds": epoch_seconds, "valid_accuracy": accuracies}


def whole(settings: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """`settings`: data (folder with train/), epochs, batch_size. Return the speed of each epoch, images a second."""
    on_gpu, workers = device.type == "cuda", min(16, len(os.sched_getaffinity(0)))  # its default is 16
    loader = _loader(settings, "train", TRAIN, shuffle=True, num_workers=workers, pin_memory=on_gpu)
    model = torchvision.models.resnet50(weights=None, num_classes=len(loader.dataset.classes)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    speeds = []
    for _ in range(settings["epochs"]):
        begun = time.perf_counter()
        model.train()
        for images, labels in loader:
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            logits = model(images)
            loss = nn.functional.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()  # its logger reads loss and accuracy of every batch
            (logits.topk(min(5, logits.shape[1])).indices == labels[:, None]).sum().item()
        speeds.append(len(loader.dataset) / (time.perf_counter() - begun))
    return {"images_per_second": speeds}


def weights(settings: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Write a ResNet-50 state_dict to `weights`, for images as those in `data`/train.

    Random weights, conditioned as trained ones are: each block adds little to what it passes on, and the batch
    normalization's statistics are measured on images, so that the features neither vanish nor explode.
    """
    model = torchvision.models.resnet50(weights=None)
    for module in model.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            nn.init.constant_(module.bn3.weight, BLOCK_SCALE)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean over the batches
    images = torchvision.datasets.ImageFolder(f"{settings['data']}/train", VALID)
    chosen = range(0, len(images), max(1, len(images) // STATISTICS_IMAGES))
    with torch.no_grad():
        for batch, _ in torch.utils.data.DataLoader(torch.utils.data.Subset(images, list(chosen)), 16):
            model(batch)
    torch.save(model.state_dict(), settings["weights"])
    return {}


def _loader(settings: dict[str, Any], split: str, transform: v2.Compose, **options: Any) -> Any:
    images = torchvision.datasets.ImageFolder(f"{settings['data']}/{split}", transform)
    return torch.utils.data.DataLoader(images, settings["batch_size"], **options)


@torch.no_grad()
def _accuracy(model: nn.Module, loader: Any, device: torch.device) -> float:
    model.eval()
    right = sum(int((model(images.to(device)).argmax(1).cpu() == labels).sum()) for images, labels in loader)
    return right / len(loader.dataset)


def bound(settings: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return images a second of each way; `settings`: data (folder of training images)."""
    files = [file.read_bytes() for file in sorted(Path(settings["data"]).rglob("*.jpg"))[:200]]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        decode = {
            "Pillow": _rate(lambda: list(pool.map(_pillow, files)), len(files)),
            "torchvision": _rate(lambda: list(pool.map(_torchvision, files)), len(files)),
        }
    images = np.stack([to_array(open_rgb(file), HOW) for file in files[: BOUND_BATCH * 4]])
    return {"decode": decode, "forward": _forward(images, device)}


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
    resized: torch.Tensor = v2.functional.resize(picture, [HOW.resize], antialias=True)
    return v2.functional.center_crop(resized, [HOW.crop])  # type: ignore[no-any-return]


def _forward(images: NDArray[np.float32], device: torch.device) -> dict[str, float]:
    import nncf  # type: ignore[import-untyped]
    import openvino  # type: ignore[import-untyped]

    model = torchvision.models.resnet50(weights=None).eval()
    program = torch.export.export(model, (torch.zeros(2, 3, 224, 224),), dynamic_shapes=({0: torch.export.Dim("n")},))
    network = openvino.convert_model(program)
    rates = {kind: _openvino(network, kind, images) for kind in ("f32", "bf16")}
    quantized = nncf.quantize(network, nncf.Dataset([image[None] for image in images[:8]]), subset_size=8)
    return rates | {"int8": _openvino(quantized, "f32", images), "torch": _torch(model, images, device)}


def _openvino(network: Any, precision: str, images: NDArray[np.float32]) -> float:
    import openvino

    def run() -> None:
        for part in np.split(images, range(BOUND_BATCH, len(images), BOUND_BATCH)):
            queue.start_async([part])
        queue.wait_all()

    best = 0.0
    for streams in (1, 2):
        options = {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": streams}
        queue = openvino.AsyncInferQueue(openvino.Core().compile_model(network, "CPU", options), streams)
        best = max(best, _rate(run, len(images)))
    return best


def _torch(model: nn.Module, images: NDArray[np.float32], device: torch.device) -> float:
    model = model.to(device).to(memory_format=torch.channels_last)
    inputs = torch.from_numpy(images).to(device, memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16):
            for part in torch.split(inputs, BOUND_BATCH if device.type == "cpu" else len(images)):
                model(part).float().cpu()

    return _rate(run, len(images))


def _rate(work: Callable[[], Any], images: int) -> float:
    """Best images a second of the rounds that fit into BOUND_SECONDS, after one that nobody counts."""
    work()
    times: list[float] = []
    until = time.perf_counter() + BOUND_SECONDS
    while not times or time.perf_counter() < until:
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return images / min(times)


if __name__ == "__main__":
    torch.manual_seed(0)
    program = {"head": head, "whole": whole, "weights": weights, "bound": bound}[sys.argv[1]]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps(program(json.loads(sys.argv[2]), device)))
