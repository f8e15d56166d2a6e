"""Images decoded by threads, ahead of the network that takes them. Pillow decodes outside Python's lock."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from training.train.data import Images, Item
from training.train.head.work import Work
from training.train.job import Flag

AHEAD_BYTES = 256 * 2**20  # of decoded images that wait: they are made while the backbone is exported


class Decoded:
    """Batches of what `of` misses, float32 [batch, 3, side, side], in order. Begins at once, and ends at the flag."""

    def __init__(
        self, threads: ThreadPoolExecutor, images: Images, of: Work, *, batch: int, side: int, stop: Flag
    ) -> None:
        self.of = of
        self._threads, self._images, self._items = threads, images, iter(of.items)
        self._batch, self._stop = batch, stop
        self._room = max(2 * batch, AHEAD_BYTES // (3 * side**2 * 4))
        self._waiting: deque[Future[Tensor]] = deque()
        self._fill()

    def __iter__(self) -> Iterator[Tensor]:
        while self._waiting and not self._stop.is_set:
            count = min(self._batch, len(self._waiting))
            # By numpy: torch would wake threads for it, which then spin where the backbone computes.
            yield torch.from_numpy(np.stack([self._waiting.popleft().result().numpy() for _ in range(count)]))
            self._fill()

    def close(self) -> None:
        """Give up what has not been taken."""
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()

    def _fill(self) -> None:
        while len(self._waiting) < self._room:
            item = next(self._items, None)
            if item is None:
                return
            self._waiting.append(self._threads.submit(self._decode, item))

    def _decode(self, item: Item) -> Tensor:
        return self._images[item][0]
