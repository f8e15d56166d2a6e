"""How far a run of the whole network is, and its checkpoints: in a folder of its own among those of other runs."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from training.train import checkpoint
from training.train.data import steps_per_epoch
from training.train.job import Job
from training.train.whole.learner import Learner


@dataclass
class Progress:
    """How far the run is: `step` steps of `epoch` (both from 0) are done, with this sum of losses over images."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    images: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def folder_of(job: Job) -> Path:
    """Return where this very run (settings, classes, data) has its checkpoints; several share the folder above."""
    identity = json.dumps(job.identity(), sort_keys=True)
    return job.paths.checkpoints / hashlib.sha256(identity.encode()).hexdigest()[:16]


def resume(job: Job, learner: Learner) -> Progress:
    """Load the newest whole checkpoint of this run, if any, into `learner`; worker 0 reads it for all."""
    found, damaged = checkpoint.newest(folder_of(job)) if job.group.is_main else (None, [])
    for name in damaged:
        print(f"checkpoint {name} is damaged and passed over", flush=True)
    state = job.group.broadcast(found)
    if not state:
        return Progress()
    learner.load(state)
    progress = Progress(**state["progress"])
    job.say(f"resuming at epoch={progress.epoch + 1} step={progress.step}")
    return progress


def save(job: Job, learner: Learner, progress: Progress) -> None:
    """Write a checkpoint. Random numbers need none: each step's seed follows from epoch, step and worker."""
    if job.group.is_main:
        steps = steps_per_epoch(len(job.train_split), job.settings.batch_size, job.group.world_size)
        state = {**learner.state(), "progress": vars(progress)}
        checkpoint.save(folder_of(job), progress.epoch * steps + progress.step, state)
