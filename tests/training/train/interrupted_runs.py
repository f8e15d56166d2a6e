"""Runs of training that are interrupted at chosen places, one after another on the same checkpoints."""

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.training.hosts_of_a_job import Job, plant, wait_for

Place = Callable[["Chain"], bool]

# Every step is an interval, so that at most one may be lost; each step done leaves a byte.
EVERY_STEP = {"CHECKPOINT_SECONDS": "0"}
COUNT = """
if program == "training.distributed.worker":
    from torch.optim.optimizer import register_optimizer_step_post_hook
    steps = open(os.path.join(os.environ["OPT_ML"], "steps"), "ab", buffering=0)
    register_optimizer_step_post_hook(lambda *_: steps.write(b"."))
"""


def prepare(root: Path) -> Path:
    """Prepare sixteen training images of two classes, and two to validate; return where the channels are."""
    random_bytes = np.random.default_rng(0)
    for number in range(22):
        name = "train" if number < 16 else "valid" if number < 18 else "test"
        file = root / "processing/input/dataset" / name / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_bytes.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(file)
    command = [sys.executable, "-m", "training", "prepare"]
    subprocess.run(command, env={"OPT_ML": str(root)}, check=True, stdout=subprocess.DEVNULL)
    return root / "processing" / "output"


class Chain:
    """Runs of one job on the same checkpoints, one after another."""

    def __init__(self, folder: Path, prepared: Path, settings: dict[str, str]) -> None:
        folder.mkdir(exist_ok=True)
        self.log, self.kills = folder / "log", 0
        self._started, self._said = 0.0, 0
        self.job = Job(folder / "job", prepared, settings, self.log)
        self._variables = {**EVERY_STEP, **plant(folder / "plant", COUNT)}

    def run_until(self, place: Place, number: int) -> int:
        """Start as on a fresh host, which has the checkpoints and nothing else; send the signal at `place` if the run
        gets there; return the exit code."""
        shutil.rmtree(self.job.paths.model, ignore_errors=True)
        self._started, self._said = time.time(), self.log.stat().st_size if self.log.exists() else 0
        with self.job.start(**self._variables) as process:
            wait_for(lambda: place(self) or process.poll() is not None, seconds=240)
            process.send_signal(number)
            self.kills += number == signal.SIGKILL
            return process.wait(120)

    def finish(self) -> str:
        """Run to the end; return the hash of what was learned."""
        assert self.run_until(lambda _: False, 0) == 0, self.log.read_text("utf-8")
        return self.job.weights()

    def said(self, text: str) -> bool:
        """Whether the last run printed it."""
        return text.encode() in self.log.read_bytes()[self._said :]

    def written(self, pattern: str) -> bool:
        """Whether the last run has written such a file among its checkpoints."""
        with contextlib.suppress(OSError):  # one is gone again
            return any(file.stat().st_mtime > self._started for file in self.job.paths.checkpoints.glob(pattern))
        return False

    @property
    def steps(self) -> int:
        return (self.job.paths.root / "steps").stat().st_size

    def checkpoints(self, kind: str = "ckpt") -> list[Path]:
        """Those there are, the newest last."""
        return sorted(self.job.paths.checkpoints.glob(f"*/step-*.{kind}"))


def after(seconds: float) -> Place:
    """At any moment: while Python starts, torch is imported, the network is built."""
    end: list[float] = []

    def reached(_: Chain) -> bool:
        end[:] = end or [time.monotonic() + seconds]
        return time.monotonic() > end[0]

    return reached


def in_a_checkpoint(chain: Chain) -> bool:
    return chain.written("*/step-*.partial")


def in_an_export(chain: Chain) -> bool:
    return (chain.job.paths.model / "model.xml").exists() or (chain.job.paths.model / "model.bin").exists()
