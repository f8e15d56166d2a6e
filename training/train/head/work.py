"""One view of one split: which of its images a worker sees to, whose features are known, and what is missing."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training import transform
from training.errors import TrainingError
from training.split import Split
from training.train import augment
from training.train.augment import augmentation
from training.train.data import Item, mix
from training.train.head.store import Rows, Store
from training.train.job import Job


@dataclass(frozen=True)
class View:
    """`number` 0 is the picture as it is evaluated, others are augmented ones.

    What is evaluated is decoded in full. At reduced size (512 pixels at least) a photograph of 1,200 takes 9 ms and not
    16, but its features differ by 1 to 3 % of their variance (ResNet-50; bfloat16: 0.03 %), and none is served so.
    """

    split: Split
    number: int

    def seed(self, job: Job, index: int) -> int:
        """Return the seed of an image's augmentation: a function of its content, as its features are found by that."""
        return mix(job.settings.seed, self.number, int(self.split.samples[index].sha256[:15], 16))

    def key(self, job: Job) -> dict[str, Any]:
        """What its pictures depend on; the program's text too, since nobody counts its versions."""
        key: dict[str, Any] = {"preprocessing": job.how.to_dict(), "transform": _sha256(transform.__file__)}
        if self.number:
            kind = augmentation(job.how)
            key |= {"view": self.number, "seed": job.settings.seed, "scale": kind.scale, "ratio": kind.ratio}
            key["augmentation"] = _sha256(augment.__file__)
        return key


class Work:
    """This worker's share of a view: rows rank, rank + world, ... of the split. `rows` are filled in that order."""

    def __init__(self, job: Job, view: View, store: Store, rows: Rows) -> None:
        self.view, self.rows, self.key = view, rows, store.name
        self._store = store
        self._places: dict[bytes, list[int]] = {}
        indices = range(job.group.rank, len(view.split), job.group.world_size)
        for place, index in enumerate(indices):
            self._places.setdefault(bytes.fromhex(view.split.samples[index].sha256), []).append(place)
        found = store.load(self._places, rows)
        self._missing = [digest for digest in self._places if digest not in found]
        first = [indices[self._places[digest][0]] for digest in self._missing]
        self.items: list[Item] = [(index, view.seed(job, index)) for index in first]
        self.reused = sum(len(self._places[digest]) for digest in found)
        self._done = self._saved = 0  # of what was missing

    def take(self, features: Rows) -> None:
        """Put the features [n, width] of the next n missing images into their rows."""
        for digest, row in zip(self._missing[self._done :], features, strict=False):
            for place in self._places[digest]:
                self.rows[place] = row
        self._done += len(features)

    def save(self) -> None:
        """Write what was taken since the last time; raises TrainingError when it is no finite number."""
        digests = self._missing[self._saved : self._done]
        if not digests:
            return
        rows = self.rows[[self._places[digest][0] for digest in digests]]
        self._refuse_infinite(rows, self.items[self._saved : self._done])
        self._store.save(digests, rows)
        self._saved = self._done

    def _refuse_infinite(self, rows: Rows, items: Sequence[Item]) -> None:
        wrong = np.flatnonzero(~np.isfinite(rows).all(1))
        if len(wrong):
            name = self.view.split.samples[items[wrong[0]][0]].name
            raise TrainingError(
                f"The frozen backbone has no finite features for {name} of the channel {self.view.split.split} "
                f"(and {len(wrong) - 1} images beside it); the weights are damaged, or too large for the precision."
            )


def _sha256(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
