"""Which images an export is calibrated with and held against: spread over the classes, the same each time."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from training.split import Split
from training.train.data import Images
from training.train.device import cores
from training.transform import Preprocessing

_FEWEST = 32  # however large they are
_PIXELS = 224 * 224  # of an image at which the most are taken


def read(split: Split, how: Preprocessing, *, most: int, seed: int) -> Tensor:
    """Return at most `most` images of `split` as they are evaluated, float32 [N, 3, crop, crop]; fewer large ones."""
    images = Images(split, how, augment=False)
    count = min(most, max(_FEWEST, most * _PIXELS // how.crop**2))
    with ThreadPoolExecutor(cores()) as threads:
        found = threads.map(lambda index: images[index, 0][0], spread(split, count, seed))
        return torch.stack(list(found))


def spread(split: Split, count: int, seed: int) -> list[int]:
    """Return `count` indices (or all), rising: one of each class, then a second of each, as long as they last."""
    order = np.random.default_rng(seed).permutation(len(split)).tolist()
    seen: Counter[int] = Counter()
    turns = []
    for index in order:
        label = split.samples[index].label
        turns.append((seen[label], index))
        seen[label] += 1
    chosen = sorted(range(len(order)), key=lambda place: (turns[place][0], place))[:count]
    return sorted(order[place] for place in chosen)
