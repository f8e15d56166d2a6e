"""A search over settings for the head: which ones to try, one trial per core, each saved as it ends."""

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.distributed.cluster import cores
from training.errors import TrainingError
from training.hyperparameters import Hyperparameters
from training.train.checkpoint import disk_errors, run_folder
from training.train.context import TrainingContext

TUNED = ("learning_rate", "weight_decay", "label_smoothing", "batch_size", "views")
_PRIMES = (2, 3, 5, 7, 11)  # one per setting: the bases of Halton's sequence
_LEARNING_RATE_SPAN = 30.0  # tried from a thirtieth of the given one to thirty times as much
_WEIGHT_DECAYS, _MAX_SMOOTHING, _BATCH_SIZES = (1e-5, 0.3), 0.2, (16, 512)
_POLL_SECONDS = 0.5  # between two looks at the signal

Trial = dict[str, Any]  # trial (its number), accuracy, loss (None where the loss became infinite), and what was tried
# Train with these settings until halted() and return accuracy and loss on validation; None once halted.
Score = Callable[[Hyperparameters, Callable[[], bool]], tuple[float, float] | None]


def search(
    context: TrainingContext, score: Score, features: str, stopped: Callable[[], bool]
) -> tuple[Hyperparameters, list[Trial]] | None:
    """Return the best settings by accuracy, then loss, then number, and all trials; None once `stopped()`.

    `features` is the key of the features. Trials of an earlier run on them are reused. Raise TrainingError when the
    loss became infinite in every trial.
    """
    started, count, images = time.monotonic(), context.settings.trials, len(context.train_split)
    settings = {number: trial_settings(number, context.settings, images) for number in range(1, count + 1)}
    log = TrialLog(context, features)
    done = {number: trial for number, trial in log.read().items() if number <= count}
    if done:
        context.log(f"trials reused={len(done)}")
    for trial in _run_trials(score, {number: settings[number] for number in settings.keys() - done.keys()}, stopped):
        if trial is None:
            return None
        log.append(trial)
        done[trial["trial"]] = trial
        context.log(_line(trial, count))
    trials = [done[number] for number in range(1, count + 1)]
    finite = [trial for trial in trials if trial["accuracy"] is not None]
    if not finite:
        raise TrainingError("In every trial the loss became infinite; lower learning_rate.")
    best = min(finite, key=lambda trial: (-trial["accuracy"], trial["loss"], trial["trial"]))
    context.log(f"trials={count} best={best['trial']} seconds={time.monotonic() - started:.3f}")
    return settings[best["trial"]], trials


def _run_trials(
    score: Score, settings: Mapping[int, Hyperparameters], stopped: Callable[[], bool]
) -> Iterator[Trial | None]:
    """Yield trials as they end, one running on each core; None, at last, once `stopped()`."""
    halt = threading.Event()
    threads = ThreadPoolExecutor(cores(), "trial", torch.set_num_threads, (1,))
    try:
        running = {threads.submit(_try, number, score, settings[number], halt.is_set) for number in sorted(settings)}
        while running:
            ended, running = wait(running, _POLL_SECONDS, FIRST_COMPLETED)
            yield from sorted((one.result() for one in ended), key=lambda trial: trial["trial"] if trial else 0)
            if running and stopped():
                yield None
                return
    finally:
        halt.set()
        threads.shutdown(cancel_futures=True)


def _try(number: int, score: Score, settings: Hyperparameters, halted: Callable[[], bool]) -> Trial | None:
    try:
        result = score(settings, halted)
    except TrainingError:  # a loss that is not finite makes a bad trial, and no failed search
        result = 0.0, math.inf
    if result is None:
        return None
    finite = math.isfinite(result[1])
    accuracy, loss = result if finite else (None, None)
    return {"trial": number, "accuracy": accuracy, "loss": loss, **{name: getattr(settings, name) for name in TUNED}}


def _line(trial: Trial, count: int) -> str:
    figures = {f"trial_{name}": "nan" if trial[name] is None else f"{trial[name]:.6f}" for name in ("accuracy", "loss")}
    words = {"trial": trial["trial"], "of": count, **figures, **{name: trial[name] for name in TUNED}}
    return " ".join(f"{name}={value}" for name, value in words.items())


def trial_settings(number: int, given: Hyperparameters, images: int) -> Hyperparameters:
    """Return the settings of trial `number`: 1 is the given ones, the others fill the space around them evenly.

    They are a Halton sequence rotated by the seed; so a longer search begins with the shorter one's trials.
    """
    if number == 1:
        return given
    rotation = np.random.default_rng(given.seed).random(len(TUNED))
    rate, decay, smoothing, batch, views = (np.array([_halton(number, base) for base in _PRIMES]) + rotation) % 1.0
    max_batch = max(1, min(_BATCH_SIZES[1], images))
    low, high = given.learning_rate / _LEARNING_RATE_SPAN, given.learning_rate * _LEARNING_RATE_SPAN
    return replace(
        given,
        learning_rate=_rounded(min(10.0, max(1e-9, _between(low, high, rate)))),
        weight_decay=_rounded(_between(*_WEIGHT_DECAYS, decay)),
        label_smoothing=_rounded(_MAX_SMOOTHING * smoothing),
        batch_size=round(_between(min(_BATCH_SIZES[0], max_batch), max_batch, batch)),
        views=min(given.views, int(views * (given.views + 1))),
    )


def _between(low: float, high: float, fraction: float) -> float:
    return float(low * (high / low) ** fraction)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _halton(number: int, base: int) -> float:
    """Return `number`'s digits in `base`, mirrored behind the point."""
    value, digit = 0.0, 1.0
    while number:
        number, rest = divmod(number, base)
        digit /= base
        value += rest * digit
    return value


def settings_folder(context: TrainingContext, settings: Mapping[str, str], features: str) -> Path:
    """Return the checkpoint folder of a head that is trained with `settings` on the features of that key."""
    return run_folder(context.paths.checkpoints, [{**context.identity(), "settings": dict(settings)}, features])


class TrialLog:
    """The trials on disk, one line each behind its checksum, so that a line that a kill cut short is ignored."""

    def __init__(self, context: TrainingContext, features: str) -> None:
        settings = {name: value for name, value in context.settings.to_strings().items() if name != "trials"}
        self._file = settings_folder(context, settings, features) / "trials.txt"

    def read(self) -> dict[int, Trial]:
        """Return the undamaged trials by number."""
        if not self._file.is_file():
            return {}
        lines = [line for line in self._file.read_bytes().split(b"\n") if line]
        trials = [json.loads(line[65:]) for line in lines if _sha256(line[65:]) == line[:64]]
        if len(trials) < len(lines):
            print(f"some trials in {self._file.parent.name}/{self._file.name} are damaged and tried again", flush=True)
        return {trial["trial"]: trial for trial in trials}

    def append(self, trial: Trial) -> None:
        """Write a line; raise TrainingError when the disk refuses."""
        text = json.dumps(trial).encode()
        with disk_errors(f"The trial in {self._file}"):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as stream:
                stream.write(b"\n" + _sha256(text) + b" " + text + b"\n")  # the line before may have been cut short
                stream.flush()
                os.fsync(stream.fileno())


def _sha256(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
