"""How far a head is: on disk whenever it is told to stop, and every few minutes of a very long training."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.errors import TrainingError
from training.hyperparameters import Hyperparameters
from training.train import checkpoint
from training.train.job import Job

CHECKPOINT_SECONDS = 300.0

History = list[dict[str, float]]


def interval(most: float) -> float:
    """Return the seconds between two writes: `most`, or less where the variable CHECKPOINT_SECONDS says so."""
    text = os.environ.get("CHECKPOINT_SECONDS", "")
    try:
        return min(most, float(text)) if text else most
    except ValueError:
        raise TrainingError(f"CHECKPOINT_SECONDS must be a number of seconds, not {text!r}.") from None


def folder_of(job: Job, settings: Mapping[str, str], features: str) -> Path:
    """Return the folder of what is learnt with `settings` on these features: a run identity among others."""
    identity = json.dumps([{**job.identity(), "settings": dict(settings)}, features], sort_keys=True)
    return job.paths.checkpoints / hashlib.sha256(identity.encode()).hexdigest()[:16]


class Keeper:
    """The checkpoints of one head."""

    def __init__(self, job: Job, settings: Hyperparameters, features: str) -> None:
        self._folder = folder_of(job, settings.to_strings(), features)
        self._interval, self._saved = interval(CHECKPOINT_SECONDS), time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._saved > self._interval

    def load(self, head: nn.Linear, optimizer: torch.optim.Optimizer) -> History:
        """Bring both to where the newest whole checkpoint is and return the epochs so far; damaged ones are said."""
        state, damaged = checkpoint.newest(self._folder)
        for name in damaged:
            print(f"checkpoint {name} is damaged and passed over", flush=True)
        if state is None:
            return []
        head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        history: History = state["history"]
        print(f"resuming at epoch={len(history) + 1}", flush=True)
        return history

    def save(self, head: nn.Linear, optimizer: torch.optim.Optimizer, history: History) -> None:
        state: dict[str, Any] = {"head": head.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
        checkpoint.save(self._folder, len(history), state)
        self._saved = time.monotonic()
