"""Many settings tried on the same features, and kept on disk as they come."""

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import torch

from training.errors import TrainingError
from training.hyperparameters import Hyperparameters
from training.train.device import cores
from training.train.head.checkpoints import folder_of
from training.train.head.design import TUNED, settings_of
from training.train.head.fit import Lesson, fit
from training.train.job import Job

_LOOK_SECONDS = 0.5  # between two looks at the signal


def search(
    job: Job, lesson: Lesson, features: str, stopped: Callable[[], bool]
) -> tuple[Hyperparameters, list[dict[str, Any]]] | None:
    """Return the best settings by accuracy, then loss, then number, and all trials; None once `stopped()`.

    `features` names what the features depend on. Raises TrainingError when no trial came to its end.
    """
    begun, count = time.monotonic(), job.settings.trials
    settings = {number: settings_of(number, job.settings, len(lesson.train_labels)) for number in range(1, count + 1)}
    log = _Log(job, features)
    done = {number: trial for number, trial in log.read().items() if number <= count}
    if done:
        job.say(f"trials reused={len(done)}")
    for trial in _tried(lesson, {number: settings[number] for number in settings.keys() - done.keys()}, stopped):
        if trial is None:
            return None
        log.add(trial)
        done[trial["trial"]] = trial
        job.say(_line(trial, count))
    trials = [done[number] for number in range(1, count + 1)]
    whole = [trial for trial in trials if trial["accuracy"] is not None]
    if not whole:
        raise TrainingError("No trial came to its end: each one's loss grew beyond all numbers; lower learning_rate.")
    best = min(whole, key=lambda trial: (-trial["accuracy"], trial["loss"], trial["trial"]))
    job.say(f"trials={count} best={best['trial']} seconds={time.monotonic() - begun:.3f}")
    return settings[best["trial"]], trials


def _tried(
    lesson: Lesson, settings: Mapping[int, Hyperparameters], stopped: Callable[[], bool]
) -> Iterator[dict[str, Any] | None]:
    """Yield trials as they end, one running on each core; None, at last, once `stopped()`."""
    halt = threading.Event()
    threads = ThreadPoolExecutor(cores(), "trial", torch.set_num_threads, (1,))
    try:
        running = {threads.submit(_try, number, lesson, settings[number], halt.is_set) for number in sorted(settings)}
        while running:
            ended, running = wait(running, _LOOK_SECONDS, FIRST_COMPLETED)
            yield from sorted((one.result() for one in ended), key=lambda trial: trial["trial"] if trial else 0)
            if running and stopped():
                yield None
                return
    finally:
        halt.set()
        threads.shutdown(cancel_futures=True)


def _try(number: int, lesson: Lesson, settings: Hyperparameters, stopped: Callable[[], bool]) -> dict[str, Any] | None:
    """Return the trial; None once `stopped()`."""
    try:
        fitted = fit(lesson, settings, stopped, lambda line: None)
    except TrainingError:  # one that runs away is a bad trial and no failure of the search
        accuracy, loss = 0.0, math.inf
    else:
        if fitted is None:
            return None
        accuracy, loss = fitted.history[-1]["valid_accuracy"], fitted.history[-1]["valid_loss"]
    finite = math.isfinite(loss)
    tried = {name: getattr(settings, name) for name in TUNED}
    return {"trial": number, "accuracy": accuracy if finite else None, "loss": loss if finite else None, **tried}


def _line(trial: dict[str, Any], count: int) -> str:
    figures = {f"trial_{name}": "nan" if trial[name] is None else f"{trial[name]:.6f}" for name in ("accuracy", "loss")}
    words = {"trial": trial["trial"], "of": count, **figures, **{name: trial[name] for name in TUNED}}
    return " ".join(f"{name}={value}" for name, value in words.items())


class _Log:
    """A line a trial, with its checksum before it: what a kill tore is no line."""

    def __init__(self, job: Job, features: str) -> None:
        settings = {name: value for name, value in job.settings.to_strings().items() if name != "trials"}
        self._file = folder_of(job, settings, features) / "trials.txt"

    def read(self) -> dict[int, dict[str, Any]]:
        """Return the trials that are known, by number."""
        if not self._file.is_file():
            return {}
        lines = self._file.read_bytes().split(b"\n")
        trials = [json.loads(line[65:]) for line in lines if _whole(line)]
        if len(trials) < len([line for line in lines if line]):
            print(f"some trials in {self._file.parent.name}/{self._file.name} are damaged and tried again", flush=True)
        return {trial["trial"]: trial for trial in trials}

    def add(self, trial: dict[str, Any]) -> None:
        """Raises TrainingError when the disk refuses."""
        text = json.dumps(trial).encode()
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as stream:
                # The line before may have been torn.
                stream.write(b"\n" + hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            reason = error.strerror or error
            raise TrainingError(
                f"The trial cannot be written to {self._file}: {reason}; give it room and leave."
            ) from error


def _whole(line: bytes) -> bool:
    return hashlib.sha256(line[65:]).hexdigest().encode() == line[:64]
