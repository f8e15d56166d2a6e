"""Whatever ends a run, the next one on the same checkpoints learns the same weights, bit for bit (on a CPU)."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.hosts_of_a_job import Job, plant, wait_for

pytestmark = pytest.mark.torch

EPOCHS, STEPS = 3, 2  # passes, and steps in each
SETTINGS = {
    "model": "mobilenet_v3_small",
    "mode": "whole",
    "image_size": "32",
    "epochs": str(EPOCHS),
    "batch_size": "8",
    "ema": "0.9",
    "mixup": "0.2",
}
# Every step is an interval, so that at most one may be lost; each step done leaves a byte.
EVERY_STEP = {"CHECKPOINT_SECONDS": "0"}
COUNT = """
if program == "training.worker":
    from torch.optim.optimizer import register_optimizer_step_post_hook
    steps = open(os.path.join(os.environ["OPT_ML"], "steps"), "ab", buffering=0)
    register_optimizer_step_post_hook(lambda *_: steps.write(b"."))
"""


@pytest.fixture(scope="module")
def prepared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen training images of two classes, and two to validate."""
    root = tmp_path_factory.mktemp("prepared")
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

    def __init__(self, folder: Path, prepared: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.log, self.kills = folder / "log", 0
        self.job = Job(folder / "job", prepared, SETTINGS, self.log)
        self._variables = {**EVERY_STEP, **plant(folder / "plant", COUNT)}

    def run_until(self, place: Callable[["Chain"], bool], number: int) -> int:
        """Start; send the signal at `place` if the run gets there; return the exit code."""
        with self.job.start(**self._variables) as process:
            wait_for(lambda: place(self) or process.poll() is not None, seconds=90)
            process.send_signal(number)
            self.kills += number == signal.SIGKILL
            return process.wait(60)

    def finish(self) -> str:
        """Run to the end; return the hash of what was learned."""
        assert self.run_until(lambda _: False, 0) == 0, self.log.read_text("utf-8")
        return self.job.weights()

    @property
    def steps(self) -> int:
        return (self.job.paths.root / "steps").stat().st_size

    def checkpoints(self, kind: str = "ckpt") -> list[Path]:
        """Those there are, the newest last."""
        return sorted(self.job.paths.checkpoints.glob(f"*/step-*.{kind}"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, prepared_data: Path) -> str:
    chain = Chain(tmp_path_factory.mktemp("undisturbed"), prepared_data)
    weights = chain.finish()
    assert chain.steps == EPOCHS * STEPS
    return weights


@pytest.fixture
def chain(tmp_path: Path, prepared_data: Path) -> Chain:
    return Chain(tmp_path, prepared_data)


def after(seconds: float) -> Callable[[Chain], bool]:
    """At any moment: while Python starts, torch is imported, the network is built."""
    end: list[float] = []

    def reached(_: Chain) -> bool:
        end[:] = end or [time.monotonic() + seconds]
        return time.monotonic() > end[0]

    return reached


def in_a_checkpoint(chain: Chain) -> bool:
    return bool(chain.checkpoints("partial"))


def in_an_export(chain: Chain) -> bool:
    return (chain.job.paths.model / "model.xml").exists() or (chain.job.paths.model / "model.bin").exists()


def in_validation(epoch: int) -> Callable[[Chain], bool]:
    """The last step of an epoch is kept, and its line is still to come."""
    return lambda chain: any(f"{epoch * STEPS:09}" in file.name for file in chain.checkpoints())


def behind_epoch(epoch: int) -> Callable[[Chain], bool]:
    return lambda chain: f"\nepoch={epoch} " in chain.log.read_text("utf-8")


def _interruptions(seed: int) -> Iterator[tuple[Callable[[Chain], bool], int]]:
    """Twenty places, four of each sort, in a random order; SIGTERM and SIGKILL in turn."""
    dice = random.Random(seed)
    places: list[Callable[[Chain], bool]] = [after(dice.uniform(0, 4)) for _ in range(8)]
    places += [in_a_checkpoint] * 4 + [in_an_export] * 3
    places += [in_validation(dice.randint(1, EPOCHS)) for _ in range(3)]
    places += [behind_epoch(dice.randint(1, EPOCHS)) for _ in range(2)]
    dice.shuffle(places)
    for number, place in enumerate(places):
        yield place, (signal.SIGTERM, signal.SIGKILL)[number % 2]


@pytest.mark.long
def test_twenty_interruptions_anywhere_change_no_bit(tmp_path: Path, prepared_data: Path, undisturbed: str) -> None:
    points = list(_interruptions(seed=20))
    assert len(points) == 20
    for start in range(0, 20, 4):
        chain = Chain(tmp_path / str(start), prepared_data)
        for place, number in points[start : start + 4]:
            # Where the signal comes before Python has a handler for it, it ends the launcher as it ends any program.
            assert chain.run_until(place, number) in (0, 143, -number), chain.log.read_text("utf-8")
        assert chain.finish() == undisturbed
        assert chain.steps <= EPOCHS * STEPS + chain.kills
        assert "Traceback" not in chain.log.read_text("utf-8")
        assert "damaged" not in chain.log.read_text("utf-8")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_inside_a_checkpoints_writing_changes_no_bit(number: int, chain: Chain, undisturbed: str) -> None:
    assert chain.run_until(in_a_checkpoint, number) == (143 if number == signal.SIGTERM else -number)
    assert chain.finish() == undisturbed
    assert chain.steps <= EPOCHS * STEPS + chain.kills
    assert chain.checkpoints("partial") == []


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _folder(file: Path) -> None:
    file.unlink()
    (file / "inside").mkdir(parents=True)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": _flip,
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "empty": lambda file: file.write_bytes(b""),
    "folder": _folder,
}


@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_costs_one_interval_and_no_bit(damage: str, chain: Chain, undisturbed: str) -> None:
    chain.run_until(behind_epoch(2), signal.SIGTERM)
    before, newest = chain.checkpoints()
    DAMAGES[damage](newest)
    steps = chain.steps
    assert chain.finish() == undisturbed
    assert f"checkpoint {newest.name} is damaged and passed over" in chain.log.read_text("utf-8")
    assert chain.steps - steps == EPOCHS * STEPS - int(before.stem.removeprefix("step-"))


def test_when_all_checkpoints_are_damaged_the_run_starts_anew(chain: Chain, undisturbed: str) -> None:
    chain.run_until(behind_epoch(2), signal.SIGTERM)
    for file in chain.checkpoints():
        _flip(file)
    steps = chain.steps
    assert chain.finish() == undisturbed
    assert chain.log.read_text("utf-8").count("is damaged and passed over") == 2
    assert "resuming" not in chain.log.read_text("utf-8")
    assert chain.steps - steps == EPOCHS * STEPS
