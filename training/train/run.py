"""A training run from the input channels to the model folder."""

import os
import time

from training.distributed.process_group import ProcessGroup
from training.hyperparameters import Hyperparameters
from training.paths import Paths
from training.train.device import prepare_device
from training.train.finish import finish
from training.train.head.run import train_head
from training.train.job import Flag, Job
from training.train.whole.run import train_whole


def run(paths: Paths, settings: Hyperparameters, stop: Flag) -> bool:
    """Train, export and return True; or return False after the checkpoint when `stop` was set."""
    started = time.monotonic()
    device = prepare_device(int(os.environ.get("LOCAL_RANK", "0")))
    with ProcessGroup.initialize(device) as group:
        job = Job(paths, settings, group, device)
        job.say(
            f"model={job.architecture.name} stem={job.architecture.stem} mode={job.mode} device={device} "
            f"precision={str(job.precision).removeprefix('torch.')} workers={group.world_size} "
            f"train_images={len(job.train_split)} valid_images={len(job.valid_split)}"
        )
        trained = train_head(job, stop) if job.mode == "head" else train_whole(job, stop)
        if trained is None:
            return False
        if group.is_main:
            finish(job, trained, seconds=time.monotonic() - started)
    return True
