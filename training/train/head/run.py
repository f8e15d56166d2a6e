"""Head mode: the frozen backbone looks at each image once; what learns is the last layer, on its features."""

import time
from typing import Any

import torch

from training.train.head.backbone import behead
from training.train.head.checkpoints import Keeper
from training.train.head.features import Features, extract
from training.train.head.fit import Lesson, fit, one_thread
from training.train.head.search import search
from training.train.job import Flag, Job, Trained


def train_head(job: Job, stop: Flag) -> Trained | None:
    """Train and return the network; None when `stop` was set and what is done has been saved.

    Worker 0 alone trains the head. The others share its fate, and return a network whose head has not learnt.
    """
    network = job.network().eval()
    place, width = behead(network)
    features = extract(job, network, width, stop)
    if features is None:
        job.say("stopped by SIGTERM; the features that were computed are written")
        return None
    if not job.group.is_main:
        return Trained(network, job.settings, torch.empty(0, 0), []) if _follow(job, stop) else None
    trained = _learn(job, features, stop)
    if trained is None:
        job.say("stopped by SIGTERM while the head learnt; what it has learnt is written")
        return None
    network.cpu().to(memory_format=torch.contiguous_format)
    network.set_submodule(place, trained.model)
    trained.model = network
    job.group.all_reduce(0, 1)
    return trained


def _follow(job: Job, stop: Flag) -> bool:
    """Wait for worker 0 and say whether it came to its end; answer it, so that it hears of this worker's signal."""
    while True:
        stops, done = job.group.all_reduce(stop.is_set, 0)
        if done or stops:
            return bool(done)


def _learn(job: Job, features: Features, stop: Flag) -> Trained | None:
    """Return the head alone as the model."""

    def stopped() -> bool:
        return job.group.all_reduce(stop.is_set, 0)[0] > 0

    lesson, settings = Lesson.of(job, features), job.settings
    trials: list[dict[str, Any]] = []
    if settings.trials:
        found = search(job, lesson, features.key, stopped)
        if found is None:
            return None
        settings, trials = found
    begun = time.monotonic()
    with one_thread():
        fitted = fit(lesson, settings, stopped, job.say, Keeper(job, settings, features.key))
    if fitted is None:
        return None
    job.say(f"head epochs={settings.epochs} seconds={time.monotonic() - begun:.3f}")
    return Trained(lesson.fold(fitted.head), settings, fitted.logits, fitted.history, trials)
