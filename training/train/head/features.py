"""The one pass of the images through the frozen backbone: each worker's share, from disk or computed now."""

import hashlib
import time
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.train.data import Images
from training.train.device import cores
from training.train.head import precision as arithmetics
from training.train.head.backbone import Backbone, digest
from training.train.head.build import Builder, TooCoarse, batch_of
from training.train.head.checkpoints import interval
from training.train.head.decode import Decoded
from training.train.head.gather import gather
from training.train.head.store import Rows, Store
from training.train.head.work import View, Work
from training.train.job import Flag, Job

CHUNK_SECONDS = 3.0  # of work that a kill may cost


@dataclass(frozen=True)
class Features:
    """On worker 0 all features, float32, in the splits' order; on others nothing. `key` names what they depend on."""

    train: Tensor  # [(1 + views) x images, width], one view after the other, the plain one first
    valid: Tensor  # [images, width]
    key: str


def extract(job: Job, network: nn.Module, width: int, stop: Flag) -> Features | None:
    """Return the features that `network`, without its head, has of both splits, in the arithmetic of the settings.

    None once any worker was told to stop: what is computed has been written.
    """
    images = (1 + job.settings.views) * len(job.train_split) + len(job.valid_split)
    chosen = job.group.broadcast(arithmetics.choose(job.settings, job.device, images))
    threads = ThreadPoolExecutor(cores(), "decode")
    try:
        extraction = Extraction(job, network, width, stop, threads)
        try:
            return extraction.run(chosen)
        except TooCoarse as reason:
            job.say(str(reason))
            return extraction.run(arithmetics.without_int8(job.settings, job.device))
    finally:
        threads.shutdown(cancel_futures=True)


class Extraction:
    """The views of both splits and where their features go."""

    def __init__(self, job: Job, network: nn.Module, width: int, stop: Flag, threads: ThreadPoolExecutor) -> None:
        self._job, self._stop, self._width, self._threads = job, stop, width, threads
        self._digest = digest(network)
        self._builder = Builder(job, network, threads)
        train = [View(job.train_split, number) for number in range(1 + job.settings.views)]
        self._groups = [train, [View(job.valid_split, 0)]]  # a line of the log each

    def run(self, arithmetic: torch.dtype) -> Features | None:
        """Raises TooCoarse where int8 is, or was found so before."""
        refusals = self._store(arithmetic, {})
        if self._job.group.broadcast(refusals.refused):
            raise TooCoarse("int8 was found too coarse for this backbone")
        wholes = [self._whole(group) for group in self._groups]
        works = [self._works(arithmetic, *pair) for pair in zip(self._groups, wholes, strict=True)]
        first = self._decoded(works[0][0])  # while the backbone is made
        try:
            backbone = self._backbone(arithmetic, [work for group in works for work in group])
        except TooCoarse:
            first.close()
            refusals.refuse()
            raise
        for group, whole in zip(works, wholes, strict=True):
            if not self._compute(group, whole, backbone, first, arithmetic):
                return None
        self._job.precision = arithmetic  # for the record
        key = hashlib.sha256("".join(work.key for group in works for work in group).encode()).hexdigest()
        train, valid = (torch.from_numpy(whole) for whole in wholes)
        return Features(train, valid, key)

    def _compute(
        self, works: list[Work], whole: Rows, backbone: Backbone | None, first: Decoded, arithmetic: torch.dtype
    ) -> bool:
        """Complete the views of a split; False once any worker was told to stop."""
        begun = time.monotonic()
        for work, rows in zip(works, np.split(whole, len(works)), strict=True):
            decoded = first if first.of is work else self._decoded(work)
            with closing(backbone.run(decoded) if backbone else _nothing()) as features:
                if not self._fill(work, features):
                    decoded.close()
                    return False
            gather(self._job.group, work.rows, rows)
        self._report(works, time.monotonic() - begun, arithmetic)
        return True

    def _fill(self, work: Work, features: Generator[Tensor]) -> bool:
        """Take and write until all workers have all; the rounds keep those who wait in touch with those who work."""
        while True:
            complete = _take(work, features)
            stops, busy = self._job.group.all_reduce(self._stop.is_set, not complete)
            if stops:
                return False
            if not busy:
                return True

    def _works(self, arithmetic: torch.dtype, views: list[View], whole: Rows) -> list[Work]:
        group, works = self._job.group, []
        for view, rows in zip(views, np.split(whole, len(views)), strict=True):
            if group.world_size > 1:
                rows = np.empty((len(range(group.rank, len(view.split), group.world_size)), self._width), np.float32)
            works.append(Work(self._job, view, self._store(arithmetic, view.key(self._job)), rows))
        return works

    def _backbone(self, arithmetic: torch.dtype, works: Iterable[Work]) -> Backbone | None:
        """Return the backbone, or None where no worker needs it."""
        missing = self._job.group.all_reduce(sum(len(work.items) for work in works))[0]
        return self._builder.build(arithmetic) if missing else None

    def _decoded(self, work: Work) -> Decoded:
        images = Images(work.view.split, self._job.how, augment=work.view.number > 0)
        batch, side = batch_of(self._job.device), self._job.how.crop
        return Decoded(self._threads, images, work, batch=batch, side=side, stop=self._stop)

    def _store(self, arithmetic: torch.dtype, view: dict[str, Any]) -> Store:
        job = self._job
        key = {"backbone": self._digest, "architecture": [job.architecture.name, job.architecture.stem], **view}
        key |= {"device": job.device.type, "arithmetic": self._builder.describe(arithmetic)}
        return Store(job.paths.checkpoints / "features", key, self._width, job.group.rank)

    def _whole(self, views: list[View]) -> Rows:
        """Return room for a split's features, on worker 0 only: no page of it is used before it is written."""
        rows = sum(len(view.split) for view in views) if self._job.group.is_main else 0
        return np.empty((rows, self._width), np.float32)

    def _report(self, works: list[Work], seconds: float, arithmetic: torch.dtype) -> None:
        images = sum(len(work.view.split) for work in works)
        reused = round(self._job.group.all_reduce(sum(work.reused for work in works))[0])
        computed, name = images - reused, arithmetics.name_of(arithmetic)
        self._job.say(
            f"features split={works[0].view.split.split} views={len(works) - 1} images={images} "
            f"computed={computed} reused={reused} seconds={seconds:.3f} "
            f"images_per_second={computed / max(seconds, 1e-9):.1f} arithmetic={name}"
        )


def _take(work: Work, features: Generator[Tensor]) -> bool:
    """Take features for some seconds and write them; True when there are no more."""
    until = time.monotonic() + interval(CHUNK_SECONDS)
    try:
        for some in features:
            work.take(some.numpy())
            if time.monotonic() > until:
                return False
        return True
    finally:
        work.save()


def _nothing() -> Generator[Tensor]:
    yield from ()
