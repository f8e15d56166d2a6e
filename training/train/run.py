"""A training run from the input channels to the model folder: train, calibrate, export, record."""

import json
import os
import time
from pathlib import Path
from typing import Any

from training import calibration
from training.distributed.process_group import ProcessGroup
from training.hyperparameters import Hyperparameters
from training.passport import write_passport
from training.paths import Paths
from training.train.context import StopFlag, TrainedModel, TrainingContext, precision_name, prepare_device
from training.train.data import sample_images
from training.train.embedding import fit_network
from training.train.export import export, why_no_int8
from training.train.finetune import finetune
from training.train.head.train import train_head
from training.train.whole import train_whole

# On two cores (Zen 4) ResNet-50 at 224 takes 45 ms for each image by which int8 is judged (float32 and int8), and the
# calibration of int8 5 s and 57 ms for each of its images: less than half a minute in all.
_CHECKED = 256  # validation images, at most, by which the exports are judged
_CALIBRATED = 100  # training images, at most, from which int8 takes its scales


def run(paths: Paths, settings: Hyperparameters, stop: StopFlag) -> bool:
    """Train, export and return True; or return False after the checkpoint when `stop` was set."""
    clock = Clock()
    device = prepare_device(int(os.environ.get("LOCAL_RANK", "0")))
    with ProcessGroup.initialize(device) as group:
        context = TrainingContext(paths, settings, group)
        architecture = context.architecture
        context.log(
            f"model={architecture.name} stem={architecture.stem} mode={context.mode} device={device} "
            f"precision={precision_name(context.precision)} workers={group.world_size} "
            f"train_images={len(context.train_split)} valid_images={len(context.valid_split)}"
        )
        clock.lap("start")
        trained = {"head": train_head, "whole": train_whole, "finetune": finetune}[context.mode](context, stop)
        clock.lap("learning")
        if trained is None:
            group.barrier()  # torchrun gives the others 30 s once one rank has ended; a checkpoint may take longer
            return False
        if group.is_main:
            save_model(context, trained, clock)
    return True


class Clock:
    """The seconds of the job's phases: `start` (imports included), `learning`, `export`."""

    def __init__(self) -> None:
        self._last, self._seconds = process_started(), dict[str, float]()

    def lap(self, phase: str) -> None:
        """End the phase that has run since the last one."""
        now = time.monotonic()
        self._seconds[phase], self._last = round(now - self._last, 1), now

    def to_dict(self) -> dict[str, Any]:
        """Return `seconds` in all and `phases`."""
        return {"seconds": round(sum(self._seconds.values()), 1), "phases": dict(self._seconds)}


def process_started() -> float:
    """Return when this process was started, in seconds of `time.monotonic`; on systems without /proc: now."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return time.monotonic()
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - since_boot


def save_model(context: TrainingContext, trained: TrainedModel, clock: Clock) -> None:
    """Write the model folder: the exports, model.json with the seconds of the whole job, and the passport last."""
    paths, settings = context.paths, trained.settings
    fitted = trained.known or fit_network(context, trained.model)
    record = {**_describe(context, trained), **_calibrate(context, trained), "known": fitted.record}
    samples, labels = sample_images(context.valid_split, context.preprocessing, most=_CHECKED, seed=settings.seed)
    for_int8 = None
    if not why_no_int8(settings):
        for_int8, _ = sample_images(context.train_split, context.preprocessing, most=_CALIBRATED, seed=settings.seed)
    exports = export(
        trained.model,
        samples,
        labels,
        paths.model,
        temperature=record["temperature"],
        settings=settings,
        calibration=for_int8,
        known=fitted,
    )
    clock.lap("export")
    record |= {"trained_on": {**_machine(context), **clock.to_dict()}, "exports": exports}
    (paths.model / "model.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    write_passport(paths.model, record, image=os.environ.get("TRAINING_IMAGE", ""))
    for name, result in exports.items():
        words = (
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in result.items()
            if key != "loss_interval"
        )
        context.log(f"export format={name} {' '.join(words)}")
    context.log("seconds " + " ".join(f"{phase}={seconds}" for phase, seconds in clock.to_dict()["phases"].items()))


def _describe(context: TrainingContext, trained: TrainedModel) -> dict[str, Any]:
    return {
        "format": 1,
        "architecture": context.architecture.name,
        "stem": context.architecture.stem,
        "classes": list(context.train_split.classes),
        "preprocessing": context.preprocessing.to_dict(),
        "hyperparameters": {**trained.settings.to_dict(), "mode": context.mode},
        "metrics": trained.metrics,
        "history": trained.history,
        "trials": trained.trials,
        "data": {
            "fingerprint": context.train_split.fingerprint,
            "train_images": len(context.train_split),
            "valid_images": len(context.valid_split),
        },
        "seed": trained.settings.seed,
    }


def _calibrate(context: TrainingContext, trained: TrainedModel) -> dict[str, Any]:
    """Fit temperature and threshold on the validation split; return them with their effect there."""
    settings = trained.settings
    logits, labels = trained.logits.float().cpu().numpy(), context.labels()[1].numpy()
    temperature = calibration.fit_temperature(logits, labels)
    correct = logits.argmax(1) == labels
    before, after = (calibration.softmax(logits, divisor).max(1) for divisor in (1.0, temperature))
    abstain = calibration.abstain(
        after, correct, coverage=settings.abstain_coverage, precision=settings.abstain_precision
    )
    errors = [calibration.expected_calibration_error(confidence, correct) for confidence in (before, after)]
    context.log(
        f"calibrated temperature={temperature:.4f} error_before={errors[0]:.4f} error_after={errors[1]:.4f} "
        f"samples={len(labels)}; {_describe_threshold(abstain, settings.abstain_precision)}"
    )
    return {
        "temperature": temperature,
        "abstain": abstain,
        "calibration": {"error_before": errors[0], "error_after": errors[1], "samples": len(labels)},
    }


def _describe_threshold(abstain: dict[str, float] | None, precision: float) -> str:
    if abstain:
        return (
            f"below a confidence of {abstain['threshold']:.6f} it answers 'not sure': on validation it answers "
            f"{abstain['coverage']:.1%}, of which {abstain['precision']:.1%} are right"
        )
    if precision:
        return f"no threshold makes {precision:.1%} of the answers right on validation: every image is answered"
    return "every image is answered"


def _machine(context: TrainingContext) -> dict[str, Any]:
    resources = context.paths.read_config("resourceconfig")
    return {
        "instance_type": resources.get("current_instance_type", ""),
        "instances": len(resources.get("hosts", ())) or 1,
        "workers": context.group.world_size,
        "device": context.device.type,
        "precision": precision_name(context.precision),
    }
