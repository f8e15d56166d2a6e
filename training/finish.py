"""What worker 0 makes of a trained network: the model folder."""

from typing import Any

import torch

from training.data import Images
from training.export import export
from training.job import Job, Trained

_SAMPLES = 8  # images on which the exported network must agree with torch


def finish(job: Job, trained: Trained, *, seconds: float) -> None:
    """Export `trained` into the model folder; `seconds`: how long the run has taken."""
    data = Images(job.valid_split, job.how, augment=False)
    samples = torch.stack([data[index, 0][0] for index in range(min(_SAMPLES, len(data)))])
    difference = export(trained.model, samples, job.paths.model, _record(job, trained))
    job.say(f"exported {job.architecture.name}; largest difference from torch {difference:.2e}")


def _record(job: Job, trained: Trained) -> dict[str, Any]:
    last = trained.history[-1] if trained.history else {}
    return {
        "format": 1,
        "architecture": job.architecture.name,
        "stem": job.architecture.stem,
        "classes": list(job.train_split.classes),
        "preprocessing": job.how.to_dict(),
        "hyperparameters": {**trained.settings.to_dict(), "mode": job.mode},
        "metrics": {name: value for name, value in last.items() if name not in ("epoch", "images_per_second")},
        "history": trained.history,
        "trials": trained.trials,
        "data": {"fingerprint": job.train_split.fingerprint},
        "seed": trained.settings.seed,
    }
