"""What worker 0 makes of a trained network: the model folder."""

import os
from typing import Any

import numpy as np
from torch import Tensor

from training import calibration
from training.hyperparameters import Hyperparameters
from training.passport import write_passport
from training.train.export import export, images
from training.train.job import Job, Trained

# On two cores (Zen 4) ResNet-50 at 224 takes 95 ms for each image that is checked (in torch, float32 and int8), and the
# calibration of int8 5 s and 57 ms for each of its images: half a minute in all.
_CHECKED = 256  # validation images, at most, on which each export must agree with torch
_CALIBRATED = 100  # training images, at most, from which int8 takes its scales


def finish(job: Job, trained: Trained, *, seconds: float) -> None:
    """Export `trained` into the model folder, with its passport last; `seconds`: how long the run has taken."""
    record = {**_record(job, trained), **_calibrated(job, trained), "trained_on": _trained_on(job, seconds)}
    settings = trained.settings
    exports = export(
        trained.model,
        images.read(job.valid_split, job.how, most=_CHECKED, seed=settings.seed),
        job.paths.model,
        record,
        settings=settings,
        calibration=_for_int8(job, settings),
    )
    write_passport(job.paths.model, record, image=os.environ.get("TRAINING_IMAGE", ""))
    for name, found in exports.items():
        job.say(f"export form={name} " + " ".join(f"{key}={_short(value)}" for key, value in found.items()))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _for_int8(job: Job, settings: Hyperparameters) -> Tensor | None:
    if settings.int8 == "no":
        return None
    return images.read(job.train_split, job.how, most=_CALIBRATED, seed=settings.seed)


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
        "data": {
            "fingerprint": job.train_split.fingerprint,
            "train_images": len(job.train_split),
            "valid_images": len(job.valid_split),
        },
        "seed": trained.settings.seed,
    }


def _calibrated(job: Job, trained: Trained) -> dict[str, Any]:
    """Fit temperature and threshold on the validation split, and say what they do there."""
    logits = trained.logits.float().cpu().numpy()
    labels = np.array([sample.label for sample in job.valid_split.samples], np.int64)
    temperature = calibration.fit_temperature(logits, labels)
    right = logits.argmax(1) == labels
    before = calibration.softmax(logits).max(1)
    after = calibration.softmax(logits, temperature).max(1)
    wanted = {"coverage": trained.settings.abstain_coverage, "precision": trained.settings.abstain_precision}
    abstain = calibration.abstain(after, right, **wanted)
    errors = [calibration.expected_calibration_error(confidence, right) for confidence in (before, after)]
    job.say(
        f"calibrated temperature={temperature:.4f} error_before={errors[0]:.4f} error_after={errors[1]:.4f} "
        f"samples={len(labels)}; {_promise(abstain, wanted['precision'])}"
    )
    return {
        "temperature": temperature,
        "abstain": abstain,
        "calibration": {"error_before": errors[0], "error_after": errors[1], "samples": len(labels)},
    }


def _promise(abstain: dict[str, float] | None, precision: float) -> str:
    if abstain:
        return (
            f"below a confidence of {abstain['threshold']:.6f} it answers 'none of these': on validation it answers "
            f"{abstain['coverage']:.1%}, of which {abstain['precision']:.1%} are right"
        )
    if precision:
        return f"no threshold makes {precision:.1%} of the answers right on validation: every image is answered"
    return "every image is answered"


def _trained_on(job: Job, seconds: float) -> dict[str, Any]:
    resources = job.paths.read_config("resourceconfig")
    return {
        "instance_type": resources.get("current_instance_type", ""),
        "instances": len(resources.get("hosts", ())) or 1,
        "workers": job.group.world_size,
        "device": job.device.type,
        "precision": str(job.precision).removeprefix("torch."),
        "seconds": round(seconds, 1),
    }
