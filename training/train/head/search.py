"""A search over settings for the head: which ones to try, one trial per core, each saved as it ends.

What it gives is the mean of the best heads. The logits of a linear layer's mean are the mean of the logits, so that an
ensemble costs nothing to serve (Wortsman et al. 2022, "Model soups").
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from training.distributed.cluster import cores
from training.errors import TrainingError
from training.hyperparameters import Hyperparameters
from training.train.checkpoint import disk_errors
from training.train.context import TrainingContext
from training.train.head.fit import TrainedHead, settings_folder, zero_head

DEFAULT_TRIALS = 8
AVERAGED = 4  # heads, at most; with dogs120's features (EfficientNet-B0, 4 seeds) 68.6 % of the test split, one: 68.2 %
TUNED = ("learning_rate", "weight_decay", "label_smoothing", "batch_size", "views")
_PRIMES = (2, 3, 5, 7, 11)  # one per setting: the bases of Halton's sequence
_LEARNING_RATES = (0.1, 2.0)  # times the given one
_WEIGHT_DECAYS, _MAX_SMOOTHING, _BATCH_SIZES = (0.3, 30.0), 0.1, (32, 256)
_POLL_SECONDS = 0.5  # between two looks at the signal

Trial = dict[str, Any]  # trial (its number), accuracy, loss (None where the loss became infinite), and what was tried
# Train with these settings until halted(); None once halted.
Fit = Callable[[Hyperparameters, Callable[[], bool]], TrainedHead | None]
Outcome = tuple[Trial, TrainedHead | None]  # without a head where the loss became infinite


@dataclass(frozen=True)
class Found:
    """The best heads, the best one first, with that one's settings, and all trials."""

    heads: list[TrainedHead]
    settings: Hyperparameters
    trials: list[Trial]

    def average(self) -> nn.Linear:
        """Return the mean of the heads, each divided by the temperature of its logits: all are as sure as right."""
        if len(self.heads) == 1:
            return self.heads[0].head
        mean = zero_head(self.heads[0].head.in_features, self.heads[0].head.out_features)
        with torch.no_grad():
            for one in self.heads:
                share = 1 / (one.temperature * len(self.heads))
                mean.weight.add_(one.head.weight, alpha=share)
                mean.bias.add_(one.head.bias, alpha=share)
        return mean


class Search:
    """The trials that are done, with the heads of the best ones."""

    def __init__(self, context: TrainingContext, fit: Fit, features: str) -> None:
        """`features` is the key of the features."""
        self._context, self._fit, self._log = context, fit, TrialLog(context, features)
        given, images = context.settings, len(context.train_split)
        self._settings = {n: trial_settings(n, given, images) for n in range(1, (given.trials or DEFAULT_TRIALS) + 1)}
        self._done = {number: trial for number, trial in self._log.read().items() if number in self._settings}
        self._heads: dict[int, TrainedHead] = {}

    def run(self, stopped: Callable[[], bool]) -> Found | None:
        """Return the best heads by loss, then number, and all trials; None once `stopped()`.

        Of an earlier run's trials on the same features the results are reused, and only the best are trained again.
        Raise TrainingError when the loss became infinite in every trial.
        """
        started = time.monotonic()
        if self._done:
            self._context.log(f"trials reused={len(self._done)}")
        if not self._run_and_keep(self._settings.keys() - self._done.keys(), stopped):
            return None
        best = self._best()
        if not best:
            raise TrainingError("In every trial the loss became infinite; lower learning_rate.")
        if not self._run_and_keep(set(best) - self._heads.keys(), stopped):
            return None
        seconds = time.monotonic() - started
        self._context.log(f"trials={len(self._settings)} best={best[0]} seconds={seconds:.3f}")
        heads = [self._heads[number] for number in best]
        return Found(heads, self._settings[best[0]], [self._done[number] for number in sorted(self._done)])

    def _best(self) -> list[int]:
        """Return the numbers of the trials whose heads are averaged, the one of the lowest loss first."""
        finite = [trial for trial in self._done.values() if trial["loss"] is not None]
        return [trial["trial"] for trial in sorted(finite, key=lambda one: (one["loss"], one["trial"]))[:AVERAGED]]

    def _run_and_keep(self, numbers: Set[int], stopped: Callable[[], bool]) -> bool:
        """Try these settings and keep the best heads; return False once `stopped()`."""
        for outcome in _run_trials(self._fit, {number: self._settings[number] for number in numbers}, stopped):
            if outcome is None:
                return False
            trial, head = outcome
            number = trial["trial"]
            if number not in self._done:
                self._log.append(trial)
                self._done[number] = trial
                self._context.log(_line(trial, len(self._settings)))
            if head:
                self._heads[number] = head
            best = self._best()
            self._heads = {number: kept for number, kept in self._heads.items() if number in best}
        return True


def _run_trials(
    fit: Fit, settings: Mapping[int, Hyperparameters], stopped: Callable[[], bool]
) -> Iterator[Outcome | None]:
    """Yield trials as they end, one running on each core; None, at last, once `stopped()`."""
    halt = threading.Event()
    threads = ThreadPoolExecutor(cores(), "trial", torch.set_num_threads, (1,))
    try:
        running = {threads.submit(_try, number, fit, settings[number], halt.is_set) for number in sorted(settings)}
        while running:
            ended, running = wait(running, _POLL_SECONDS, FIRST_COMPLETED)
            outcomes = [one.result() for one in ended]
            yield from sorted(outcomes, key=lambda outcome: outcome[0]["trial"] if outcome else 0)
            if running and stopped():
                yield None
                return
    finally:
        halt.set()
        threads.shutdown(cancel_futures=True)


def _try(number: int, fit: Fit, settings: Hyperparameters, halted: Callable[[], bool]) -> Outcome | None:
    try:
        head = fit(settings, halted)
        if head is None:
            return None
    except TrainingError:  # a loss that is not finite makes a bad trial, and no failed search
        head = None
    accuracy, loss = (head.accuracy, head.loss) if head else (None, None)
    tried = {name: getattr(settings, name) for name in TUNED}
    return {"trial": number, "accuracy": accuracy, "loss": loss, **tried}, head


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
    low, high = (given.learning_rate * factor for factor in _LEARNING_RATES)
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
