"""Whole-network mode: every weight learns, from images that are decoded and augmented anew in each epoch."""

import os
import time

import torch
from torch import Tensor

from training.errors import TrainingError
from training.metrics import format_epoch
from training.train import engine
from training.train.data import Images, Item, Share, batches, mix, step_size, train_plan
from training.train.job import Flag, Job, Trained
from training.train.whole import checkpoints as keep
from training.train.whole.learner import Learner
from training.train.whole.validate import measures, named, validate

CHECKPOINT_SECONDS = 300.0  # spot instances may vanish without the signal; an epoch can be longer than that


def train_whole(job: Job, stop: Flag) -> Trained | None:
    """Train to the last epoch; None when `stop` was set: the checkpoint is written.

    Checkpoints are written after each epoch and every CHECKPOINT_SECONDS (the environment variable of that name comes
    first). A finished run leaves its last: started again it validates and exports once more, and trains nothing.
    """
    return Run(job, stop).train()


class Run:
    """A training run's parts, made once; `train` moves `progress` to the end or stops at the flag."""

    def __init__(self, job: Job, stop: Flag) -> None:
        self.job, self.settings, self.group, self.stop = job, job.settings, job.group, stop
        self.share = Share(self.group.rank, self.group.world_size)
        self.interval = _interval()
        _refuse_single_images(job)
        self.learner = Learner(job)
        self.progress = keep.resume(job, self.learner)

    def train(self) -> Trained | None:
        """Train to the last epoch, or save and return None once any worker was told to stop."""
        logits = None
        while self.progress.epoch < self.settings.epochs:
            started, before = time.monotonic(), self.progress.images
            if not self._train_epoch():
                return None
            seconds, images = time.monotonic() - started, self.progress.images - before
            logits = self._validate()
            if logits is None:
                return None
            self._finish_epoch(logits, images / max(seconds, 1e-9))
        if logits is None:  # resumed behind the last epoch
            logits = self._validate()
        if logits is None:
            return None
        model = self.learner.kept.to(memory_format=torch.contiguous_format)
        return Trained(model, self.settings, logits, self.progress.history)

    def _train_epoch(self) -> bool:
        now, size = self.progress, self.settings.batch_size
        plan = train_plan(len(self.job.train_split), size, self.share, seed=self.settings.seed, epoch=now.epoch)
        data = Images(self.job.train_split, self.job.how, augment=True)
        saved = time.monotonic()
        self.learner.network.train()
        for images, labels in batches(data, plan[now.step :], self.job.device):
            loss = self._step(images, labels, plan)
            total, count, stops = self.group.all_reduce(loss * len(labels), len(labels), self.stop.is_set)
            now.step, now.loss, now.images = now.step + 1, now.loss + total, now.images + count
            if stops:
                self._leave(f"after epoch={now.epoch + 1} step={now.step}")
                return False
            if time.monotonic() - saved > self.interval:
                keep.save(self.job, self.learner, now)
                saved = time.monotonic()
        return True

    def _step(self, images: Tensor, labels: Tensor, plan: list[list[Item]]) -> float:
        now, peak, seed = self.progress, self.settings.learning_rate, self.settings.seed
        rate = engine.learning_rate(now.epoch * len(plan) + now.step, self.settings.epochs * len(plan), peak)
        share = engine.mixup_share(self.settings.mixup, mix(seed, now.epoch, now.step))
        torch.manual_seed(mix(seed, now.epoch, now.step, self.share.rank))  # dropout
        try:
            return self.learner.step(images, labels, rate=rate, share=share)
        except engine.NotFinite as error:
            names = named([self.job.train_split.samples[index].name for index, _ in plan[now.step]])
            raise TrainingError(
                f"Training stopped at epoch {now.epoch + 1}, batch {now.step + 1} of {len(plan)}: {error}. "
                f"Try a learning_rate below {peak:g}; the batch is {names}."
            ) from None

    def _validate(self) -> Tensor | None:
        logits = validate(self.job, self.learner, self.stop)
        if logits is None:  # the epoch's last step is kept; validation starts over
            self._leave(f"while validating epoch={self.progress.epoch + 1}")
        return logits

    def _leave(self, where: str) -> None:
        keep.save(self.job, self.learner, self.progress)
        self.job.say(f"stopped by SIGTERM {where}; checkpoint written")

    def _finish_epoch(self, logits: Tensor, speed: float) -> None:
        now = self.progress
        loss = now.loss / max(1.0, now.images)
        metrics = {"train_loss": loss, **measures(logits, self.job), "images_per_second": speed}
        self.job.say(format_epoch(now.epoch + 1, **metrics))
        history = [*now.history, {"epoch": now.epoch + 1, **metrics}]
        self.progress = keep.Progress(epoch=now.epoch + 1, history=history)
        keep.save(self.job, self.learner, self.progress)


def _refuse_single_images(job: Job) -> None:
    """Batch normalization compares a batch's images with each other: of a single one it makes zeros."""
    images, batch, world = len(job.train_split), job.settings.batch_size, job.group.world_size
    if step_size(images, batch, world) == world:
        raise TrainingError(
            f"Whole-network training needs two images a worker and step, but {images} images in batches of {batch} "
            f"leave one for each of the {world} workers; raise batch_size, or give more images."
        )


def _interval() -> float:
    text = os.environ.get("CHECKPOINT_SECONDS", "")
    try:
        return float(text) if text else CHECKPOINT_SECONDS
    except ValueError:
        raise TrainingError(f"CHECKPOINT_SECONDS must be a number of seconds, not {text!r}.") from None
