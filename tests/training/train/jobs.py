"""Prepared splits made without Prepare, and training jobs on them in this process."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from training.distributed.process_group import ProcessGroup
from training.hyperparameters import Hyperparameters
from training.paths import Paths
from training.split import Sample, Split, load_split
from training.train.context import TrainingContext
from training.train.data import Images
from training.train.head import backbone
from training.train.model import Architecture
from training.transform import Preprocessing

CLASSES = ("cat", "dog")
CPU = torch.device("cpu")
SIDE, WIDTH = 32, 32  # pixels of head mode's images, features of the tiny network
WHOLE = {"model": "mobilenet_v3_small", "image_size": 16, "epochs": 2, "batch_size": 4, "precision": "float32"}
HEAD = {"model": "resnet18", "image_size": SIDE, "epochs": 3, "batch_size": 4, "precision": "float32"}


class TinyNetwork(nn.Module):
    """What torchvision's networks have, in a thousandth of the size: convolution, normalization, dropout and a head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.pool = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.1))
        self.fc = nn.Linear(WIDTH, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pool(self.bn1(self.conv1(images))))
        return logits


def tiny_network(architecture: Architecture) -> nn.Module:
    """Stand in for `training.train.model.build_network`."""
    return TinyNetwork(architecture.classes)


class StopAfter:
    """The flag that SIGTERM sets: set, or raising `error` as a kill does, once it was looked at `looks` times."""

    def __init__(self, looks: int | None = None, error: type[BaseException] | None = None) -> None:
        self._left, self._error = looks, error

    @property
    def is_set(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        if self._left < 0 and self._error:
            raise self._error
        return self._left < 0


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def scene(seed: int, width: int, height: int) -> Image.Image:
    """Coloured waves of many lengths, strong at large scales as in photographs, and some grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / height
    waves = sum(
        np.sin(3 * 2**octave * (x * np.cos(turn) + y * np.sin(turn)))[..., None] * rng.normal(0, 1, 3) / octave
        for octave in range(1, 6)
        for turn in rng.uniform(0, 7, 3)
    )
    pixels = 128 + 40 * waves + rng.normal(0, 4, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def tinted(label: int, seed: int, side: int = 32) -> bytes:
    """A noisy image whose colour tells its class."""
    pixels = np.random.default_rng(seed).integers(0, 120, (side, side, 3), dtype=np.uint8)
    pixels[..., 2 * label] += 120
    return encoded(Image.fromarray(pixels), "PNG")


def tinted_images(count: int, first: int = 0) -> list[tuple[int, bytes]]:
    """So many images (label, encoded), of each class in turn."""
    return [(number % 2, tinted(number % 2, first + number)) for number in range(count)]


def write_split(
    folder: Path, name: str, images: Sequence[tuple[int, bytes]], classes: Sequence[str] = CLASSES
) -> Split:
    """Write and load a split of (label, encoded image) pairs, named `class/number.img`; replace what was there."""
    folder.mkdir(parents=True, exist_ok=True)
    shard, samples = b"", []
    for number, (label, data) in enumerate(images):
        digest = hashlib.sha256(data).hexdigest()
        sample = f"{classes[label]}/{number}.img"
        samples.append(Sample("shard-00000.tar", len(shard), len(data), label, sample, digest))
        shard += data
    (folder / "shard-00000.tar").write_bytes(shard)
    Split(folder, name, tuple(classes), tuple(samples), "0123456789abcdef").write_index()
    return load_split(folder)


def channel(root: Path, name: str) -> Path:
    return Paths(root).channel(name)


def write_channels(root: Path, train: int = 12, valid: int = 5) -> None:
    """The three channels of a job: so many tinted images, and no weights."""
    for name, count, first in (("train", train, 0), ("valid", valid, 1000)):
        write_split(channel(root, name), name, tinted_images(count, first))
    channel(root, "weights").mkdir()
    (channel(root, "weights") / "weights.json").write_text(json.dumps({"file": None}), "utf-8")


def write_weights(root: Path, network: nn.Module) -> None:
    """Write the network's weights, with the batch normalization's statistics measured on the training images."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean
    split = load_split(channel(root, "train"))
    images = Images(split, Preprocessing.for_image_size(SIDE), augment=False)
    with torch.no_grad():
        network(torch.stack([images[index, 0][0] for index in range(len(split))]))
    torch.save(network.state_dict(), channel(root, "weights") / "weights.pth")
    (channel(root, "weights") / "weights.json").write_text(json.dumps({"file": "weights.pth"}), "utf-8")


def write_head_job(root: Path, network: nn.Module | None = None, seed: int = 0) -> Path:
    """Write the channels of a job with pretrained weights (the tiny network's, random): 20 and 9 images."""
    if not root.exists():
        write_channels(root, 20, 9)
    torch.manual_seed(seed)
    write_weights(root, network or TinyNetwork(7))
    return root


def head_context(root: Path, **settings: Any) -> TrainingContext:
    """Head mode on the channels in `root`, alone on one core."""
    return TrainingContext(Paths(root), Hyperparameters(**{**HEAD, **settings}), ProcessGroup(0, 1, CPU))


def whole_context(root: Path, train: int = 12, **settings: Any) -> TrainingContext:
    """Whole-network mode on so many training and five validation images, alone on one core."""
    if not root.exists():
        write_channels(root, train)
    return TrainingContext(Paths(root), Hyperparameters(**{**WHOLE, **settings}), ProcessGroup(0, 1, CPU))


_converted: dict[str, Any] = {}
_convert = backbone.convert


def convert_once(network: nn.Module, side: int) -> Any:
    """Stand in for `backbone.convert`: it takes half a second and gives the same each time."""
    key = f"{backbone._weights_sha256(network)} {side}"
    if key not in _converted:
        _converted[key] = _convert(network, side)
    return _converted[key]


def weights_of(trained: Any) -> str:
    """The SHA-256 of a trained network and of its validation logits."""
    total = hashlib.sha256()
    for value in (*trained.model.state_dict().values(), trained.logits):
        total.update(value.contiguous().numpy().tobytes())
    return total.hexdigest()


def chunks(root: Path) -> list[Path]:
    return sorted((root / "checkpoints" / "features").glob("*/*.features"))


def features_in_torch(network: nn.Module, images: Images, items: list[tuple[int, int]]) -> Tensor:
    """What torch computes for some images one by one, [items, width]."""
    with torch.inference_mode():
        return torch.cat([network(images[item][0][None]) for item in items])
