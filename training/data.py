"""Batches of a prepared split. What a worker sees is a function of seed, epoch and step, so any step can be resumed."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2  # type: ignore[import-untyped]

from training.errors import TrainingError
from training.split import Split
from training.transform import SMALL, Preprocessing, open_rgb, to_array

Item = tuple[int, int]  # index of the sample, seed of its augmentation


@dataclass(frozen=True)
class Share:
    """This worker's place among all."""

    rank: int = 0
    world: int = 1


class Images(Dataset[tuple[Tensor, int]]):
    """Decoded samples of a split: float32 [3, side, side] and the label; augmented if `augment`."""

    def __init__(self, split: Split, how: Preprocessing, *, augment: bool) -> None:
        self._split, self._how = split, how
        self._augment = augmentation(how) if augment else None

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, item: Item) -> tuple[Tensor, int]:
        index, seed = item
        sample = self._split.samples[index]
        try:
            picture = open_rgb(self._split.read(index))
        except OSError as error:
            raise TrainingError(f"{sample.name} in {sample.shard} cannot be decoded ({error}).") from error
        if self._augment is None:
            return torch.from_numpy(to_array(picture, self._how)), sample.label
        with torch.random.fork_rng(devices=[]):  # the network's own randomness must not depend on how images are read
            torch.manual_seed(seed)
            return self._augment(picture), sample.label


def augmentation(how: Preprocessing) -> v2.Transform:
    """Random crop and mirror image: wide crops of photographs, slight ones of images that are small and tight."""
    scale, ratio = ((0.7, 1.0), (0.9, 1.1)) if how.crop <= SMALL else ((0.3, 1.0), (3 / 4, 4 / 3))
    return v2.Compose(
        [
            v2.RandomResizedCrop(how.crop, scale=scale, ratio=ratio, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(how.mean, how.std),
        ]
    )


def steps_per_epoch(images: int, batch_size: int, world: int) -> int:
    """Return the optimizer steps of an epoch; the images beyond the last whole batch wait for another epoch's order.

    Raises TrainingError when some worker would get nothing.
    """
    if batch_size < world or images < world:
        raise TrainingError(
            f"{world} workers need batch_size and images of {world} at least, not {batch_size}, {images}."
        )
    return max(1, images // batch_size)


def train_plan(images: int, batch_size: int, share: Share, *, seed: int, epoch: int) -> list[list[Item]]:
    """Return this worker's samples for each step of an epoch. The workers' shares of a step are disjoint and equal."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(mix(seed, epoch))).tolist()
    size = min(batch_size, images) // share.world * share.world
    return [
        [
            (index, mix(seed, epoch, index))
            for index in order[step * size + share.rank : (step + 1) * size : share.world]
        ]
        for step in range(steps_per_epoch(images, batch_size, share.world))
    ]


def valid_plan(images: int, batch_size: int, share: Share) -> list[list[Item]]:
    """Return this worker's samples for validation; all workers together see every image once."""
    mine = range(share.rank, images, share.world)
    size = max(1, batch_size // share.world)
    return [[(index, 0) for index in mine[start : start + size]] for start in range(0, len(mine), size)]


def batches(images: Images, plan: Sequence[list[Item]], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images [batch, 3, side, side] and labels [batch] on `device`.

    A GPU is fed by processes that decode ahead; on a CPU the network itself needs the cores.
    """
    ahead = min(16, os.cpu_count() or 1) if device.type == "cuda" else 0
    loader = DataLoader(images, batch_sampler=plan, num_workers=ahead, pin_memory=ahead > 0)
    for pictures, labels in loader:
        yield pictures.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def mix(*numbers: int) -> int:
    """Return a seed that differs for each sequence of numbers (FNV-1a over 64 bits, cut to 63)."""
    value = 0xCBF29CE484222325
    for number in numbers:
        for byte in number.to_bytes(8, "little"):
            value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value % 2**63
