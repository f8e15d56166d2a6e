"""Whole-network mode: every weight learns, from images that are decoded and augmented anew in each epoch."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from training import checkpoint, engine
from training import model as networks
from training.data import Images, Share, batches, mix, steps_per_epoch, train_plan, valid_plan
from training.errors import TrainingError
from training.job import Flag, Job, Trained
from training.metrics import format_epoch

CHECKPOINT_SECONDS = 300.0  # spot instances may vanish without the signal; an epoch can be longer than that


def train_whole(job: Job, stop: Flag) -> Trained | None:
    """Train to the last epoch; None when `stop` was set: the checkpoint is written."""
    run = Run(job)
    run.resume()
    return run.train(stop)


@dataclass
class Progress:
    """How far the run is: `step` steps of `epoch` (both from 0) are done, with this sum of losses over images."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    images: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


class Run:
    """A training run's parts, made once; `train` moves `progress` to the end or stops at the flag."""

    def __init__(self, job: Job) -> None:
        self.job, self.settings, self.peers = job, job.settings, job.peers
        self.model = job.network()
        if job.mode == "head":
            networks.freeze_backbone(self.model)
        self.model.to(job.device)
        self.optimizer = engine.optimizer_for(self.model, weight_decay=self.settings.weight_decay)
        self.progress = Progress()

    def resume(self) -> None:
        """Take up the newest whole checkpoint of this very run; worker 0 reads it for all."""
        found, damaged = checkpoint.newest(self.job.paths.checkpoints) if self.peers.first else (None, [])
        for name in damaged:
            print(f"checkpoint {name} is damaged and passed over", flush=True)
        if found and found["identity"] != self.job.identity():
            print("the checkpoints belong to another run (data or settings differ): starting anew", flush=True)
            found = None
        state = self.peers.from_first(found)
        if state:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.progress = Progress(**state["progress"])
            self.job.say(f"resuming at epoch={self.progress.epoch + 1} step={self.progress.step}")

    def save(self) -> None:
        """Write a checkpoint. Random numbers need none: each step's seed follows from epoch, step and worker."""
        if self.peers.first:
            steps = steps_per_epoch(len(self.job.train_split), self.settings.batch_size, self.peers.world)
            state = {
                "identity": self.job.identity(),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "progress": vars(self.progress),
            }
            checkpoint.save(self.job.paths.checkpoints, self.progress.epoch * steps + self.progress.step, state)

    def train(self, stop: Flag) -> Trained | None:
        """Train to the last epoch, or save and return None once any worker was told to stop."""
        learner = self._learner()
        logits = None
        while self.progress.epoch < self.settings.epochs:
            started, before = time.monotonic(), self.progress.images
            if not self._train_epoch(learner, stop):
                return None
            seconds, images = time.monotonic() - started, self.progress.images - before
            logits = self._validate(stop)
            if logits is None:
                return None
            self._finish_epoch(logits, images / max(seconds, 1e-9))
        if logits is None:  # resumed behind the last epoch
            logits = self._validate(stop)
        if logits is None:
            return None
        return Trained(self.model, self.settings, logits, self.progress.history)

    def _train_epoch(self, learner: nn.Module, stop: Flag) -> bool:
        share, seed, now = Share(self.peers.rank, self.peers.world), self.settings.seed, self.progress
        plan = train_plan(len(self.job.train_split), self.settings.batch_size, share, seed=seed, epoch=now.epoch)
        data = Images(self.job.train_split, self.job.how, augment=True)
        saved = time.monotonic()
        networks.set_training(self.model, self.job.mode)
        for images, labels in batches(data, plan[now.step :], self.job.device):
            torch.manual_seed(mix(seed, now.epoch, now.step, share.rank))  # dropout
            loss = self._step(learner, images, labels, now, steps=len(plan))
            total, count, stops = self.peers.sum(loss * len(labels), len(labels), stop.is_set)
            now.step, now.loss, now.images = now.step + 1, now.loss + total, now.images + count
            if stops:
                self.save()
                self.job.say(f"stopped by SIGTERM after epoch={now.epoch + 1} step={now.step}; checkpoint written")
                return False
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = time.monotonic()
        return True

    def _step(self, learner: nn.Module, images: torch.Tensor, labels: torch.Tensor, now: Progress, steps: int) -> float:
        rate = engine.learning_rate(
            now.epoch * steps + now.step, self.settings.epochs * steps, self.settings.learning_rate
        )
        try:
            return engine.train_step(
                learner,
                self.optimizer,
                images,
                labels,
                rate=rate,
                label_smoothing=self.settings.label_smoothing,
                precision=self.job.precision,
            )
        except engine.NotFinite as error:
            raise TrainingError(
                f"Training stopped at epoch {now.epoch + 1}, batch {now.step + 1} of {steps}: {error}; "
                f"try a learning_rate below {self.settings.learning_rate:g}."
            ) from None

    def _validate(self, stop: Flag) -> Tensor | None:
        """Return float32 [validation images, classes], the same on each worker; None when stopped."""
        plan = valid_plan(len(self.job.valid_split), self.settings.batch_size, Share(self.peers.rank, self.peers.world))
        data = Images(self.job.valid_split, self.job.how, augment=False)
        pending = batches(data, plan, self.job.device)
        unless_stopped = (images for images, _ in pending if not stop.is_set)
        logits = engine.answer(self.model, unless_stopped, self.job.precision)
        if self.peers.sum(stop.is_set)[0]:  # the epoch's last step is kept; validation starts over
            self.save()
            self.job.say(f"stopped by SIGTERM while validating epoch={self.progress.epoch + 1}; checkpoint written")
            return None
        return self.peers.interleave(logits, len(self.job.valid_split))

    def _finish_epoch(self, logits: Tensor, speed: float) -> None:
        now = self.progress
        labels = torch.tensor([sample.label for sample in self.job.valid_split.samples])
        metrics = {
            "train_loss": now.loss / max(1.0, now.images),
            "valid_loss": functional.cross_entropy(logits, labels).item(),
            "valid_accuracy": (logits.argmax(1) == labels).float().mean().item(),
            "images_per_second": speed,
        }
        self.job.say(format_epoch(now.epoch + 1, **metrics))
        history = [*now.history, {"epoch": now.epoch + 1, **metrics}]
        self.progress = Progress(epoch=now.epoch + 1, history=history)
        self.save()

    def _learner(self) -> nn.Module:
        if self.peers.world == 1:
            return self.model
        return DistributedDataParallel(
            self.model, device_ids=[self.job.device] if self.job.device.type == "cuda" else None
        )
