"""Batches of a prepared split. What a worker sees is a function of seed, epoch and step, so any step can be resumed."""

import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from training.errors import TrainingError
from training.split import Split
from training.train.augment import augmentation, open_reduced
from training.transform import Preprocessing, open_rgb, to_array

Item = tuple[int, int]  # index of the sample, seed of its augmentation
_AHEAD = 1  # batches decoded before they are asked for: more would only hold memory


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
        sample, data = self._split.samples[index], self._split.read(index)
        try:
            if self._augment is None:
                return torch.from_numpy(to_array(open_rgb(data), self._how)), sample.label
            return self._augment(open_reduced(data, self._augment.least_side), seed), sample.label
        except OSError as error:
            raise TrainingError(f"{sample.name} in {sample.shard} cannot be decoded ({error}).") from error


def step_size(images: int, batch_size: int, world: int) -> int:
    """Return the images of an optimizer step over all workers, who get equal parts.

    Raises TrainingError when some worker would get nothing.
    """
    if batch_size < world or images < world:
        raise TrainingError(
            f"{world} workers need batch_size and images of {world} at least, not {batch_size}, {images}."
        )
    return min(batch_size, images) // world * world


def steps_per_epoch(images: int, batch_size: int, world: int) -> int:
    """Return the optimizer steps of an epoch; the images beyond the last whole batch wait for another epoch's order."""
    return images // step_size(images, batch_size, world)


def train_plan(images: int, batch_size: int, share: Share, *, seed: int, epoch: int) -> list[list[Item]]:
    """Return this worker's samples for each step of an epoch. The workers' shares of a step are disjoint and equal."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(mix(seed, epoch))).tolist()
    size = step_size(images, batch_size, share.world)
    return [
        [
            (index, mix(seed, epoch, index))
            for index in order[step * size + share.rank : (step + 1) * size : share.world]
        ]
        for step in range(images // size)
    ]


def valid_plan(images: int, batch_size: int, share: Share) -> list[list[Item]]:
    """Return this worker's samples for validation; all workers together see every image once."""
    mine = range(share.rank, images, share.world)
    size = max(1, batch_size // share.world)
    return [[(index, 0) for index in mine[start : start + size]] for start in range(0, len(mine), size)]


def batches(images: Images, plan: Sequence[list[Item]], device: torch.device) -> Generator[tuple[Tensor, Tensor]]:
    """Yield images [batch, 3, side, side] (in memory [batch, side, side, 3]) and labels [batch] on `device`.

    A GPU is fed by processes. On a CPU threads decode ahead: they need neither the shared memory, of which a container
    has little, nor a fork of a process that already computes on several threads.
    """
    if device.type == "cuda":
        found: Iterator[tuple[Tensor, Tensor]] = iter(
            DataLoader(images, batch_sampler=plan, num_workers=min(16, _cores()), pin_memory=True)
        )
    else:
        found = _decoded_ahead(images, plan)
    for pictures, labels in found:
        yield (
            pictures.to(device, non_blocking=True, memory_format=torch.channels_last),
            labels.to(device, non_blocking=True),
        )


def _decoded_ahead(images: Images, plan: Sequence[list[Item]]) -> Iterator[tuple[Tensor, Tensor]]:
    waiting: deque[list[Future[tuple[Tensor, int]]]] = deque()
    threads = ThreadPoolExecutor(_cores(), "decode")
    try:
        for items in plan:
            waiting.append([threads.submit(images.__getitem__, item) for item in items])
            if len(waiting) > _AHEAD:
                yield default_collate([one.result() for one in waiting.popleft()])
        while waiting:
            yield default_collate([one.result() for one in waiting.popleft()])
    finally:
        threads.shutdown(cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def mix(*numbers: int) -> int:
    """Return a seed that differs for each sequence of numbers (FNV-1a over 64 bits, cut to 63)."""
    value = 0xCBF29CE484222325
    for number in numbers:
        for byte in number.to_bytes(8, "little"):
            value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value % 2**63
