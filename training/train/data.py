"""From a prepared split to batches: decoded, augmented, ordered, and divided among the ranks.

What a rank sees is a function of seed, epoch and step, so that a run can be resumed at any step.
"""

import itertools
import math
import random
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.distributed.cluster import cores
from training.errors import TrainingError
from training.split import Split, classes_in_turn
from training.transform import SMALL, Preprocessing, open_image, open_rgb, to_array, to_rgb

Item = tuple[int, int]  # index of the sample, seed of its augmentation
Box = tuple[float, float, float, float]  # left, top, right, bottom

_MIN_SIDE = 512  # pixels: no photograph is decoded smaller, even where the network sees less
_MIN_SAMPLES = 32  # images of `sample_images`, however large they are


@dataclass(frozen=True)
class Augmentation:
    """Random resized crop and horizontal flip, the same for the same seed in any thread.

    `scale` bounds the fraction of the area that a crop takes, `ratio` its width over its height.
    """

    preprocessing: Preprocessing
    scale: tuple[float, float]
    ratio: tuple[float, float]

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> "Augmentation":
        """Return wide crops for photographs, slight ones for images that are small and tightly framed."""
        if preprocessing.crop <= SMALL:
            return cls(preprocessing, scale=(0.7, 1.0), ratio=(0.9, 1.1))
        return cls(preprocessing, scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3))

    @property
    def min_side(self) -> int:
        """The shorter side in pixels at which even the smallest crop need not be enlarged."""
        return max(_MIN_SIDE, math.ceil(self.preprocessing.crop / math.sqrt(self.scale[0] * self.ratio[0])))

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        """Return float32 [3, crop, crop] of an RGB image."""
        rng = random.Random(seed)
        box, flipped = self._draw_box(*image.size, rng), rng.random() < 0.5
        side = self.preprocessing.crop
        view = image.resize((side, side), Image.Resampling[self.preprocessing.interpolation.upper()], box)
        view = ImageOps.mirror(view) if flipped else view
        return torch.from_numpy(to_array(view, replace(self.preprocessing, resize=side)))

    def _draw_box(self, width: int, height: int, rng: random.Random) -> Box:
        """Draw as torchvision's RandomResizedCrop does, in fractions of pixels."""
        low, high = self.ratio
        for _ in range(10):
            area = width * height * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
            w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if w <= width and h <= height:
                left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
                return left, top, min(left + w, width), min(top + h, height)
        w, h = min(width, height * high), min(height, width / low)  # very long images: the middle
        return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def open_reduced(data: bytes, min_side: int) -> Image.Image:
    """Decode upright in RGB; a JPEG at 1/2, 1/4 or 1/8 of its size where the shorter side keeps `min_side` pixels.

    Measured on photographs of 1.3 to 12 megapixels: up to three times as fast, and crops at 224 differ by 0.1 to 0.5 of
    255 levels on average (one of fine fur: 3); saved anew at JPEG quality 75 they differ by 0.3 to 1.4.
    """
    image = open_image(data)
    if isinstance(image, JpegImageFile):
        image.draft(None, (min_side, min_side))
    return to_rgb(image)


class Images(Dataset[tuple[Tensor, int]]):
    """Decoded samples of a split: float32 [3, side, side] and the label; augmented if `augment`."""

    def __init__(self, split: Split, preprocessing: Preprocessing, *, augment: bool) -> None:
        self._split, self._preprocessing = split, preprocessing
        self._augmentation = Augmentation.of(preprocessing) if augment else None

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, item: Item) -> tuple[Tensor, int]:
        index, seed = item
        sample, data = self._split.samples[index], self._split.read(index)
        try:
            if self._augmentation is None:
                return torch.from_numpy(to_array(open_rgb(data), self._preprocessing)), sample.label
            return self._augmentation(open_reduced(data, self._augmentation.min_side), seed), sample.label
        except OSError as error:
            raise TrainingError(f"{sample.name} in {sample.shard} cannot be decoded ({error}).") from error


def step_size(images: int, batch_size: int, world_size: int) -> int:
    """Return the images of an optimizer step over all ranks, who get equal parts.

    Raise TrainingError when some rank would get none.
    """
    if batch_size < world_size or images < world_size:
        raise TrainingError(
            f"{world_size} workers need batch_size and images of {world_size} at least, not {batch_size}, {images}."
        )
    return min(batch_size, images) // world_size * world_size


def steps_per_epoch(images: int, batch_size: int, world_size: int) -> int:
    """Return the optimizer steps of an epoch; images beyond the last whole batch are left to another epoch's order."""
    return images // step_size(images, batch_size, world_size)


def train_plan(
    images: int, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world_size: int = 1
) -> list[list[Item]]:
    """Return this rank's samples for each step of an epoch. The ranks' parts of a step are disjoint and equal."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(mix(seed, epoch))).tolist()
    size = step_size(images, batch_size, world_size)
    return [
        [(index, mix(seed, epoch, index)) for index in order[step * size + rank : (step + 1) * size : world_size]]
        for step in range(images // size)
    ]


def valid_plan(images: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> list[list[Item]]:
    """Return this rank's samples for validation, in batches; all ranks together see every image once."""
    shard = range(rank, images, world_size)
    size = max(1, batch_size // world_size)
    return [[(index, 0) for index in shard[start : start + size]] for start in range(0, len(shard), size)]


def batches(images: Images, plan: Sequence[list[Item]], device: torch.device) -> Generator[tuple[Tensor, Tensor]]:
    """Yield images [batch, 3, side, side] (in memory [batch, side, side, 3]) and labels [batch] on `device`.

    Processes decode for a GPU. For a CPU threads decode in advance: they need neither the shared memory, of which a
    container has little, nor a fork of a process that already computes on several threads.
    """
    if device.type == "cuda":
        decoded: Iterator[tuple[Tensor, Tensor]] = iter(
            DataLoader(images, batch_sampler=plan, num_workers=min(16, cores()), pin_memory=True)
        )
    else:
        decoded = _decode_in_threads(images, plan)
    for pixels, labels in decoded:
        yield (
            pixels.to(device, non_blocking=True, memory_format=torch.channels_last),
            labels.to(device, non_blocking=True),
        )


def _decode_in_threads(images: Images, plan: Sequence[list[Item]]) -> Iterator[tuple[Tensor, Tensor]]:
    threads = ThreadPoolExecutor(cores(), "decode")
    try:
        yield from DecodedBatches(threads, images, plan, ahead=2)  # the next while one is used: more would take memory
    finally:
        threads.shutdown(cancel_futures=True)


class DecodedBatches:
    """Images float32 [batch, 3, side, side] and labels [batch] of each batch of `plan`, in order.

    `threads` decode up to `ahead` batches in advance, from the start on; Pillow decodes without Python's lock.
    """

    def __init__(
        self, threads: ThreadPoolExecutor, images: Images, plan: Iterable[Sequence[Item]], *, ahead: int
    ) -> None:
        self._threads, self._images, self._plan, self._ahead = threads, images, iter(plan), ahead
        self._waiting: deque[list[Future[tuple[Tensor, int]]]] = deque()
        self._fill()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while self._waiting:
            pixels, labels = zip(*(future.result() for future in self._waiting.popleft()), strict=True)
            # By numpy: torch would wake threads for it, which then spin where the network computes.
            yield torch.from_numpy(np.stack([one.numpy() for one in pixels])), torch.tensor(labels)
            self._fill()

    def close(self) -> None:
        """Cancel the decoding of what has not been taken."""
        for future in itertools.chain.from_iterable(self._waiting):
            future.cancel()
        self._waiting.clear()

    def _fill(self) -> None:
        for items in itertools.islice(self._plan, self._ahead - len(self._waiting)):
            self._waiting.append([self._threads.submit(self._images.__getitem__, item) for item in items])


def sample_images(split: Split, preprocessing: Preprocessing, *, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return at most `most` images of all classes (fewer if larger than 224 pixels) and their labels.

    float32 [N, 3, crop, crop], not augmented, and int64 [N].
    """
    images = Images(split, preprocessing, augment=False)
    count = min(most, max(_MIN_SAMPLES, most * 224**2 // preprocessing.crop**2))
    chosen = sample_by_class(split, count, seed)
    with ThreadPoolExecutor(cores()) as threads:
        decoded = list(threads.map(lambda index: images[index, 0][0], chosen))
    return torch.stack(decoded), torch.tensor([split.samples[index].label for index in chosen])


def sample_by_class(split: Split, count: int, seed: int) -> list[int]:
    """Return `count` indices (or all), ascending: one of each class, then a second of each, as long as they last."""
    order = np.random.default_rng(seed).permutation(len(split)).tolist()
    return sorted(classes_in_turn(order, [sample.label for sample in split.samples])[:count])


def mix(*numbers: int) -> int:
    """Return a seed that differs for each sequence of numbers (FNV-1a over 64 bits, cut to 63)."""
    value = 0xCBF29CE484222325
    for number in numbers:
        for byte in number.to_bytes(8, "little"):
            value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value % 2**63
