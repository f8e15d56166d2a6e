"""The features of all images: each rank's part in one pass through the frozen backbone, or from disk."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from training import transform
from training.distributed.cluster import cores
from training.distributed.process_group import ProcessGroup
from training.errors import TrainingError
from training.passport import file_sha256
from training.split import Split
from training.train import data
from training.train.checkpoint import FeatureStore, Rows, checkpoint_interval
from training.train.context import StopFlag, TrainingContext, precision_name
from training.train.data import Augmentation, DecodedBatches, Images, Item, mix
from training.train.head.backbone import (
    Backbone,
    BackboneFactory,
    Int8TooCoarse,
    choose_backbone_precision,
    precision_without_int8,
)

CHUNK_SECONDS = 3.0  # of work that a kill may cost
PREFETCH_BYTES = 256 * 2**20  # of decoded images that wait: they are decoded while the backbone is built
_GATHER_ROWS = 4096  # sent at once: rank 0 has as many of each rank in memory beside the whole


@dataclass(frozen=True)
class Features:
    """On rank 0 all features, float32, in the splits' order; on others none. `key` names what they depend on."""

    train: Tensor  # [(1 + views) x images, width], one view after the other, the plain one first
    valid: Tensor  # [images, width]
    key: str


def extract_features(context: TrainingContext, network: nn.Module, width: int, stop: StopFlag) -> Features | None:
    """Return the features, `width` each, that `network` (without its head) has of both splits.

    None once any rank was stopped: what is computed has been written.
    """
    images = (1 + context.settings.views) * len(context.train_split) + len(context.valid_split)
    precision = context.group.broadcast(choose_backbone_precision(context.settings, context.device, images))
    threads = ThreadPoolExecutor(cores(), "decode")
    try:
        extraction = Extraction(context, BackboneFactory(context, network, threads), width, stop, threads)
        try:
            return extraction.run(precision)
        except Int8TooCoarse as reason:
            context.log(str(reason))
            return extraction.run(precision_without_int8(context.settings, context.device))
    finally:
        threads.shutdown(cancel_futures=True)


class Extraction:
    """The one pass: what is known is loaded, what is missing computed, saved every few seconds, and gathered."""

    def __init__(
        self,
        context: TrainingContext,
        factory: BackboneFactory,
        width: int,
        stop: StopFlag,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._context, self._factory, self._width, self._stop = context, factory, width, stop
        self._threads = threads

    def run(self, precision: torch.dtype) -> Features | None:
        """Return the features; raise Int8TooCoarse where int8 is, or was in an earlier run."""
        context, group = self._context, self._context.group
        verdict = self._store(precision, {})  # remembers whether this precision was rejected
        if group.broadcast(verdict.rejected):
            raise Int8TooCoarse("int8 was found too coarse for this backbone")
        splits = [
            self._load(precision, context.train_split, views=1 + context.settings.views),
            self._load(precision, context.valid_split, views=1),
        ]
        first = self._decode(splits[0][1][0])  # while the backbone is built
        missing = group.all_reduce(sum(len(part.items) for _, parts in splits for part in parts))[0]
        try:
            backbone = self._factory.build(precision) if missing else None
        except Int8TooCoarse:
            first.close()
            verdict.reject()
            raise
        for whole, parts in splits:
            started = time.monotonic()
            for part, rows in zip(parts, np.split(whole, len(parts)), strict=True):
                decoded = first if part is splits[0][1][0] else self._decode(part)
                if backbone and not self._compute(part, backbone, decoded):
                    return None
                _gather(group, part.rows, rows)
            self._log(parts, precision, time.monotonic() - started)
        context.precision = precision  # for the record
        key = hashlib.sha256("".join(part.key for _, parts in splits for part in parts).encode()).hexdigest()
        (train, _), (valid, _) = splits
        return Features(torch.from_numpy(train), torch.from_numpy(valid), key)

    def _compute(self, part: "PendingFeatures", backbone: Backbone, decoded: DecodedBatches) -> bool:
        """Compute and save what is missing until all ranks are done; return False once any rank was stopped.

        Ranks synchronize every few seconds, so that one that waits for the others does not run into the time-out.
        """
        seconds = min(CHUNK_SECONDS, checkpoint_interval())
        taken = (images for images, _ in takewhile(lambda _: not self._stop.is_set, decoded))
        with closing(decoded), closing(backbone.run(taken)) as features:
            while True:
                started, busy = time.monotonic(), False
                try:
                    for batch in features:
                        part.add(batch.numpy())
                        if time.monotonic() - started > seconds:
                            busy = True
                            break
                finally:
                    part.save()
                stopped, unfinished = self._context.group.all_reduce(self._stop.is_set, busy)
                if stopped or not unfinished:
                    return not stopped

    def _load(self, precision: torch.dtype, split: Split, *, views: int) -> "tuple[Rows, list[PendingFeatures]]":
        """Return the array for all features of a split and, for each view, this rank's part with what is on disk."""
        context, group = self._context, self._context.group
        # On rank 0 only; no page of it takes memory before it is written.
        whole = np.empty((views * len(split) if group.is_main else 0, self._width), np.float32)
        parts = []
        for view, rows in enumerate(np.split(whole, views)):
            if group.world_size > 1:
                rows = np.empty((len(range(group.rank, len(split), group.world_size)), self._width), np.float32)
            store = self._store(precision, _view_key(context, view))
            parts.append(PendingFeatures(context, split, view, store, rows))
        return whole, parts

    def _decode(self, part: "PendingFeatures") -> DecodedBatches:
        images = Images(part.split, self._context.preprocessing, augment=part.view > 0)
        size, side = self._factory.batch, self._context.preprocessing.crop
        plan = (part.items[start : start + size] for start in range(0, len(part.items), size))
        return DecodedBatches(self._threads, images, plan, ahead=max(2, PREFETCH_BYTES // (size * 3 * side**2 * 4)))

    def _store(self, precision: torch.dtype, view: dict[str, Any]) -> FeatureStore:
        folder = self._context.paths.checkpoints / "features"
        return FeatureStore(folder, self._factory.key(precision) | view, self._width, self._context.group.rank)

    def _log(self, parts: "list[PendingFeatures]", precision: torch.dtype, seconds: float) -> None:
        images = sum(len(part.split) for part in parts)
        reused = round(self._context.group.all_reduce(sum(part.reused for part in parts))[0])
        computed = images - reused
        self._context.log(
            f"features split={parts[0].split.split} views={len(parts) - 1} images={images} "
            f"computed={computed} reused={reused} seconds={seconds:.3f} "
            f"images_per_second={computed / max(seconds, 1e-9):.1f} precision={precision_name(precision)}"
        )


class PendingFeatures:
    """This rank's features of one view of a split: `rows` rank, rank + world_size, ... of it, and which are missing.

    View 0 is the image as it is evaluated, the others are augmented. What is evaluated is decoded in full: at reduced
    size (512 pixels at least) a photograph of 1,200 takes 9 ms and not 16, but its features differ by 1 to 3 % of their
    variance (ResNet-50; bfloat16: 0.03 %), and none is served so.
    """

    def __init__(self, context: TrainingContext, split: Split, view: int, store: FeatureStore, rows: Rows) -> None:
        self.split, self.view, self.rows, self.key = split, view, rows, store.name
        self._store = store
        self._places: dict[bytes, list[int]] = {}
        indices = range(context.group.rank, len(split), context.group.world_size)
        for place, index in enumerate(indices):
            self._places.setdefault(bytes.fromhex(split.samples[index].sha256), []).append(place)
        found = store.load(self._places, rows)
        self._missing = [digest for digest in self._places if digest not in found]
        first = [indices[self._places[digest][0]] for digest in self._missing]
        self.items: list[Item] = [(index, view_seed(context, split, view, index)) for index in first]
        self.reused = sum(len(self._places[digest]) for digest in found)
        self._done = self._saved = 0  # of what was missing

    def add(self, features: Rows) -> None:
        """Put the features [n, width] of the next n missing images into their rows."""
        for digest, row in zip(self._missing[self._done :], features, strict=False):
            self.rows[self._places[digest]] = row
        self._done += len(features)

    def save(self) -> None:
        """Write what was added since the last time; raise TrainingError when it is not finite."""
        digests = self._missing[self._saved : self._done]
        if not digests:
            return
        rows = self.rows[[self._places[digest][0] for digest in digests]]
        wrong = np.flatnonzero(~np.isfinite(rows).all(1))
        if len(wrong):
            name = self.split.samples[self.items[self._saved + wrong[0]][0]].name
            raise TrainingError(
                f"The frozen backbone has no finite features for {name} of the channel {self.split.split} "
                f"(and {len(wrong) - 1} images beside it); the weights are damaged, or too large for the precision."
            )
        self._store.save(digests, rows)
        self._saved = self._done


def view_seed(context: TrainingContext, split: Split, view: int, index: int) -> int:
    """Return the seed of an image's augmentation: a function of its content, as its features are found by that."""
    return mix(context.settings.seed, view, int(split.samples[index].sha256[:15], 16))


def _view_key(context: TrainingContext, view: int) -> dict[str, Any]:
    """Return what a view's pixels depend on; the program's text too, which has no version."""
    key: dict[str, Any] = {
        "preprocessing": context.preprocessing.to_dict(),
        "transform": file_sha256(Path(transform.__file__)),
    }
    if view:
        augmentation = Augmentation.of(context.preprocessing)
        key |= {"view": view, "seed": context.settings.seed, "scale": augmentation.scale, "ratio": augmentation.ratio}
        key["augmentation"] = file_sha256(Path(data.__file__))
    return key


def _gather(group: ProcessGroup, own: Rows, whole: Rows) -> None:
    """Fill rank 0's `whole` [images, width] with all ranks' rows; rank r has rows r, r + world_size, ..."""
    if group.world_size == 1:
        return  # its rows are the whole
    longest = int(group.all_reduce(len(own) if group.is_main else 0)[0])  # no rank has more rows than rank 0
    for start in range(0, longest, _GATHER_ROWS):
        chunk = torch.zeros(min(_GATHER_ROWS, longest - start), own.shape[1])
        filled = torch.from_numpy(own[start : start + _GATHER_ROWS])
        chunk[: len(filled)] = filled
        chunk = chunk.to(group.device)
        chunks = [torch.empty_like(chunk) for _ in range(group.world_size)] if group.is_main else None
        distributed.gather(chunk, chunks, dst=0)
        for rank, received in enumerate(chunks or ()):
            target = whole[rank :: group.world_size][start : start + _GATHER_ROWS]
            target[:] = received[: len(target)].cpu().numpy()
