"""What Kennel's training is compared with: `python -m benchmarks.lib.training_recipes head|whole|weights JSON`.

head: the recipe that most people write for a head on a frozen backbone. Every image goes through the whole network in
every epoch, in float32, one batch after the other; the backbone's parameters are frozen, the last layer is new.

whole: the defaults of torchvision's references/classification. SGD with momentum 0.9, learning rate 0.1, weight decay
1e-4, float32, random resized crops of 224 and horizontal flips through Pillow, loader processes (16, but not more than
cores). Written from its documentation: https://github.com/pytorch/vision/tree/main/references/classification.

weights: a file to start from where the pretrained weights cannot be had. Each prints one line of JSON.
"""

import json
import os
import sys
import time
from typing import Any

import torch
import torchvision  # type: ignore[import-untyped]
from torch import nn
from torchvision.transforms import v2  # type: ignore[import-untyped]

TO_TENSOR = v2.Compose(
    [
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)
TRAIN = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(0.5), TO_TENSOR])
VALID = v2.Compose([v2.Resize(256), v2.CenterCrop(224), TO_TENSOR])
BLOCK_SCALE, STATISTICS_IMAGES = 0.2, 64


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
    on_gpu, workers = device.type == "cuda", min(16, len(os.sched_getaffinity(0)))
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


if __name__ == "__main__":
    torch.manual_seed(0)
    recipe = {"head": head, "whole": whole, "weights": weights}[sys.argv[1]]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps(recipe(json.loads(sys.argv[2]), device)))
