"""The whole network by the defaults of torchvision's references/classification: `python -m ... SETTINGS_JSON`.

SGD with momentum 0.9, learning rate 0.1, weight decay 1e-4, batches of 32, float32, random resized crops of 224 and
mirror images through Pillow, loader processes (16, but not more than cores). Written from its documentation:
https://github.com/pytorch/vision/tree/main/references/classification. Prints one JSON line.
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

AUGMENT = v2.Compose(
    [
        v2.RandomResizedCrop(224, antialias=True),
        v2.RandomHorizontalFlip(0.5),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


def main(settings: dict[str, Any]) -> None:
    """`settings`: data (folder with train/), epochs, batch_size. The speed of each epoch, images a second."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torchvision.datasets.ImageFolder(f"{settings['data']}/train", AUGMENT)
    workers = min(16, len(os.sched_getaffinity(0)))
    loader: Any = torch.utils.data.DataLoader(
        images, settings["batch_size"], shuffle=True, num_workers=workers, pin_memory=device.type == "cuda"
    )
    model = torchvision.models.resnet50(weights=None, num_classes=len(images.classes)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    speeds = []
    for _ in range(settings["epochs"]):
        begun = time.perf_counter()
        _train(model, optimizer, loader, device)
        speeds.append(len(images) / (time.perf_counter() - begun))
    print(json.dumps({"images_per_second": speeds}))


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, loader: Any, device: torch.device) -> None:
    model.train()
    for images, labels in loader:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        logits = model(images)
        loss = nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        # What its logger reads of every batch.
        loss.item()
        (logits.topk(min(5, logits.shape[1])).indices == labels[:, None]).sum().item()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
