"""A training run from the input channels to the model folder: the files and lines around the engine."""

import os
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from training import checkpoint, engine
from training import model as networks
from training.data import Images, Share, batches, mix, steps_per_epoch, train_plan, valid_plan
from training.device import choose_precision, prepare_device
from training.errors import TrainingError
from training.export import export
from training.hyperparameters import Hyperparameters
from training.metrics import format_epoch
from training.paths import Paths
from training.peers import Peers
from training.split import load_split
from training.transform import Preprocessing

CHECKPOINT_SECONDS = 300.0  # spot instances may vanish without the signal; an epoch can be longer than that


class Flag(Protocol):
    is_set: bool


@dataclass
class Progress:
    """How far the run is: `step` steps of `epoch` (both from 0) are done, with this sum of losses over images."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    images: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)


class Run:
    """A training run's parts, made once; `train` moves `progress` to the end or stops at the flag."""

    def __init__(self, paths: Paths, settings: Hyperparameters, peers: Peers, device: torch.device) -> None:
        self.paths, self.settings, self.peers, self.device = paths, settings, peers, device
        self.train_split, self.valid_split = load_split(paths.channel("train")), load_split(paths.channel("valid"))
        if self.train_split.classes != self.valid_split.classes:
            raise TrainingError("The channels train and valid have different classes; both must come from one Prepare.")
        self.how = Preprocessing.for_image_size(settings.image_size)
        self.precision = choose_precision(settings.precision, device)
        self.progress = Progress()
        self._build(networks.read_weights(paths.channel("weights")))

    def _build(self, weights: tuple[str, networks.State] | None) -> None:
        torch.manual_seed(self.settings.seed)
        state = weights[1] if weights else None
        self.mode = networks.resolve_mode(self.settings, weights is not None)
        self.architecture = networks.choose(self.settings, len(self.train_split.classes), state)
        self.model = networks.build(self.architecture)
        if weights:
            networks.load_weights(self.model, self.architecture, *weights)
        if self.mode == "head":
            networks.freeze_backbone(self.model)
        self.model.to(self.device)
        self.optimizer = engine.optimizer_for(self.model, weight_decay=self.settings.weight_decay)

    def resume(self) -> None:
        """Take up the newest whole checkpoint of this very run; worker 0 reads it for all."""
        found, damaged = checkpoint.newest(self.paths.checkpoints) if self.peers.first else (None, [])
        for name in damaged:
            print(f"checkpoint {name} is damaged and passed over", flush=True)
        if found and found["identity"] != self._identity():
            print("the checkpoints belong to another run (data or settings differ): starting anew", flush=True)
            found = None
        state = self.peers.from_first(found)
        if state:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.progress = Progress(**state["progress"])
            self.say(f"resuming at epoch={self.progress.epoch + 1} step={self.progress.step}")

    def save(self) -> None:
        """Write a checkpoint. Random numbers need none: each step's seed follows from epoch, step and worker."""
        if self.peers.first:
            steps = steps_per_epoch(len(self.train_split), self.settings.batch_size, self.peers.world)
            state = {
                "identity": self._identity(),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "progress": vars(self.progress),
            }
            checkpoint.save(self.paths.checkpoints, self.progress.epoch * steps + self.progress.step, state)

    def train(self, stop: Flag) -> bool:
        """Train to the last epoch and return True, or save and return False once any worker was told to stop."""
        learner = self._learner()
        while self.progress.epoch < self.settings.epochs:
            started, before = time.monotonic(), self.progress.images
            if not self._train_epoch(learner, stop):
                return False
            seconds, images = time.monotonic() - started, self.progress.images - before
            measured = self._validate(stop)
            if measured is None:
                return False
            self._finish_epoch(measured, images / max(seconds, 1e-9))
        return True

    def _train_epoch(self, learner: nn.Module, stop: Flag) -> bool:
        share, seed, now = Share(self.peers.rank, self.peers.world), self.settings.seed, self.progress
        plan = train_plan(len(self.train_split), self.settings.batch_size, share, seed=seed, epoch=now.epoch)
        data = Images(self.train_split, self.how, augment=True)
        saved = time.monotonic()
        networks.set_training(self.model, self.mode)
        for images, labels in batches(data, plan[now.step :], self.device):
            torch.manual_seed(mix(seed, now.epoch, now.step, share.rank))  # dropout
            loss = self._step(learner, images, labels, now, steps=len(plan))
            total, count, stops = self.peers.sum(loss * len(labels), len(labels), stop.is_set)
            now.step, now.loss, now.images = now.step + 1, now.loss + total, now.images + count
            if stops:
                self.save()
                self.say(f"stopped by SIGTERM after epoch={now.epoch + 1} step={now.step}; checkpoint written")
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
                precision=self.precision,
            )
        except engine.NotFinite as error:
            raise TrainingError(
                f"Training stopped at epoch {now.epoch + 1}, batch {now.step + 1} of {steps}: {error}; "
                f"try a learning_rate below {self.settings.learning_rate:g}."
            ) from None

    def _validate(self, stop: Flag) -> tuple[float, float] | None:
        """Return loss and accuracy over the whole validation split, the same on each worker; None when stopped."""
        plan = valid_plan(len(self.valid_split), self.settings.batch_size, Share(self.peers.rank, self.peers.world))
        data = Images(self.valid_split, self.how, augment=False)
        pending = batches(data, plan, self.device)
        unless_stopped = (batch for batch in pending if not stop.is_set)
        totals = engine.measure(self.model, unless_stopped, self.precision).tolist()
        loss, right, count, stops = self.peers.sum(*totals, stop.is_set)
        if stops:  # the epoch's last step is kept; validation starts over
            self.save()
            self.say(f"stopped by SIGTERM while validating epoch={self.progress.epoch + 1}; checkpoint written")
            return None
        return loss / count, right / count

    def _finish_epoch(self, measured: tuple[float, float], speed: float) -> None:
        now = self.progress
        now.metrics = {
            "train_loss": now.loss / max(1.0, now.images),
            "valid_loss": measured[0],
            "valid_accuracy": measured[1],
        }
        self.say(format_epoch(now.epoch + 1, **now.metrics, images_per_second=speed))
        self.progress = Progress(epoch=now.epoch + 1, metrics=now.metrics)
        self.save()

    def write_model(self) -> None:
        """Export the model folder from worker 0."""
        if not self.peers.first:
            return
        data = Images(self.valid_split, self.how, augment=False)
        samples = torch.stack([data[index, 0][0] for index in range(min(8, len(data)))])
        difference = export(self.model, samples, self.paths.model, self._record())
        print(f"exported {self.architecture.name}; largest difference from torch {difference:.2e}", flush=True)

    def say(self, line: str) -> None:
        if self.peers.first:
            print(line, flush=True)

    def _learner(self) -> nn.Module:
        if self.peers.world == 1:
            return self.model
        return DistributedDataParallel(self.model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def _identity(self) -> dict[str, Any]:
        classes, fingerprint = list(self.train_split.classes), self.train_split.fingerprint
        return {"settings": self.settings.to_strings(), "classes": classes, "fingerprint": fingerprint}

    def _record(self) -> dict[str, Any]:
        return {
            "format": 1,
            "architecture": self.architecture.name,
            "stem": self.architecture.stem,
            "classes": list(self.train_split.classes),
            "preprocessing": self.how.to_dict(),
            "hyperparameters": {**self.settings.to_dict(), "mode": self.mode},
            "metrics": self.progress.metrics,
            "data": {"fingerprint": self.train_split.fingerprint},
            "seed": self.settings.seed,
        }


def run(paths: Paths, settings: Hyperparameters, stop: Flag) -> bool:
    """Train, export and return True; or return False after the checkpoint when `stop` was set."""
    device = prepare_device(int(os.environ.get("LOCAL_RANK", "0")))
    with Peers.join(device) as peers:
        job = Run(paths, settings, peers, device)
        job.say(
            f"model={job.architecture.name} stem={job.architecture.stem} mode={job.mode} device={device} "
            f"precision={str(job.precision).removeprefix('torch.')} workers={peers.world} "
            f"train_images={len(job.train_split)} valid_images={len(job.valid_split)}"
        )
        job.resume()
        if not job.train(stop):
            return False
        job.write_model()
    return True
