"""Jobs in head mode in this process: pretrained weights whose features tell the pictures apart, and a signal's flag."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.training.splits_by_hand import CLASSES, tinted, write_channels, write_split
from training.distributed.process_group import ProcessGroup
from training.hyperparameters import Hyperparameters
from training.paths import Paths
from training.split import load_split
from training.train.data import Images
from training.train.head import build
from training.train.head.backbone import digest
from training.train.head.compiled import convert
from training.train.job import Job
from training.train.model import Architecture
from training.train.model import build as network_of
from training.transform import Preprocessing

SIDE = 32
SETTINGS = {"model": "resnet18", "image_size": SIDE, "epochs": 3, "batch_size": 4, "precision": "float32"}


class _Flag:
    def __init__(self, after: int | None = None) -> None:
        self.left = after
        self.looks = 0

    @property
    def is_set(self) -> bool:
        self.looks += 1
        return self.left is not None and self.looks > self.left


def flag(after: int | None = None) -> Any:
    """A stop flag that is set once it was looked at `after` times; by default never."""
    return _Flag(after)


def write_weights(root: Path, seed: int = 0) -> None:
    """Random weights of a ResNet-18, with the batch normalization's statistics measured on the training pictures."""
    torch.manual_seed(seed)
    network = network_of(Architecture("resnet18", "small", 7))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean
    split = load_split(root / "input" / "data" / "train")
    images = Images(split, Preprocessing.for_image_size(SIDE), augment=False)
    with torch.no_grad():
        network(torch.stack([images[index, 0][0] for index in range(len(split))]))
    folder = root / "input" / "data" / "weights"
    torch.save(network.state_dict(), folder / "resnet18.pth")
    (folder / "weights.json").write_text(json.dumps({"file": "resnet18.pth"}), "utf-8")


def write_job(root: Path, train: int = 20, valid: int = 9) -> None:
    """The channels of a job with weights."""
    write_channels(root, train, valid)
    write_weights(root)


def replace_train(root: Path, pictures: list[tuple[int, bytes]]) -> None:
    """Put other training pictures (label, encoded) in the channel's place."""
    folder = root / "input" / "data" / "train"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    write_split(folder, "train", pictures, CLASSES)


def pictures(count: int = 20) -> list[tuple[int, bytes]]:
    """The training pictures that `write_job` writes."""
    return [(number % 2, tinted(number % 2, number)) for number in range(count)]


def head_job(root: Path, group: ProcessGroup | None = None, **settings: Any) -> Job:
    cpu = torch.device("cpu")
    return Job(Paths(root), Hyperparameters(**{**SETTINGS, **settings}), group or ProcessGroup(0, 1, cpu), cpu)


def export_once(monkeypatch: Any) -> None:
    """Exporting takes two seconds and gives the same each time."""
    monkeypatch.setattr(build, "convert", _convert)


_exported: dict[tuple[str, int], Any] = {}


def _convert(network: nn.Module, side: int) -> Any:
    key = digest(network), side
    if key not in _exported:
        _exported[key] = convert(network, side)
    return _exported[key]


def weights_of(trained: Any) -> str:
    """The SHA-256 of a trained network, its answers included."""
    total = hashlib.sha256()
    for value in (*trained.model.state_dict().values(), trained.logits):
        total.update(value.contiguous().numpy().tobytes())
    return total.hexdigest()


def chunks(root: Path) -> list[Path]:
    return sorted((root / "checkpoints" / "features").glob("*/*.features"))


def features_of(network: nn.Module, images: Images, items: list[tuple[int, int]]) -> Tensor:
    """What torch itself makes of some pictures one by one, [items, width]."""
    with torch.inference_mode():
        return torch.cat([network(images[item][0][None]) for item in items])
