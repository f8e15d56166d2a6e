"""The reference recipe for a head on a frozen backbone, as most people write it: `python -m ... SETTINGS_JSON`.

Every image goes through the whole network in every epoch, in float32, one batch after the other; the backbone's
parameters are frozen, the last layer is new. Prints one JSON line.
"""

import json
import sys
import time
from typing import Any

import torch
import torchvision  # type: ignore[import-untyped]
from torch import nn
from torchvision import transforms

NORMALIZE = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TRAIN = transforms.Compose(
    [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(), NORMALIZE]
)
VALID = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), NORMALIZE])


def main(settings: dict[str, Any]) -> None:
    """`settings`: data (folder with train/ and valid/), weights, epochs, batch_size, learning_rate."""
    started = time.perf_counter()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, valid = (_loader(settings, split, how) for split, how in (("train", TRAIN), ("valid", VALID)))
    model = torchvision.models.resnet50(weights=None)
    model.load_state_dict(torch.load(settings["weights"], weights_only=True))
    model.requires_grad_(False)
    model.fc = nn.Linear(model.fc.in_features, len(train.dataset.classes))
    model.to(device)
    optimizer = torch.optim.AdamW(model.fc.parameters(), lr=settings["learning_rate"])
    start_seconds, epochs, accuracies = time.perf_counter() - started, [], []
    for _ in range(settings["epochs"]):
        begun = time.perf_counter()
        _train(model, optimizer, train, device)
        accuracies.append(_accuracy(model, valid, device))
        epochs.append(time.perf_counter() - begun)
    print(json.dumps({"start_seconds": start_seconds, "epoch_seconds": epochs, "valid_accuracy": accuracies}))


def _loader(settings: dict[str, Any], split: str, how: transforms.Compose) -> Any:
    images = torchvision.datasets.ImageFolder(f"{settings['data']}/{split}", how)
    return torch.utils.data.DataLoader(images, settings["batch_size"], shuffle=split == "train")


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, loader: Any, device: torch.device) -> None:
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@torch.no_grad()
def _accuracy(model: nn.Module, loader: Any, device: torch.device) -> float:
    model.eval()
    right = sum(int((model(images.to(device)).argmax(1).cpu() == labels).sum()) for images, labels in loader)
    return right / len(loader.dataset)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
