"""Whatever ends a run, the next one on the same checkpoints learns the same weights, bit for bit (on a CPU)."""

import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.training.train.interrupted_runs import Chain, Place, after, in_a_checkpoint, in_an_export, prepare

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
    "int8": "no",  # head mode's interruptions meet it
}


@pytest.fixture(scope="module")
def prepared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, prepared_data: Path) -> str:
    chain = Chain(tmp_path_factory.mktemp("undisturbed"), prepared_data, SETTINGS)
    weights = chain.finish()
    assert chain.steps == EPOCHS * STEPS
    return weights


@pytest.fixture
def chain(tmp_path: Path, prepared_data: Path) -> Chain:
    return Chain(tmp_path, prepared_data, SETTINGS)


def in_validation(epoch: int) -> Place:
    """The last step of an epoch is kept, and its line is still to come."""
    return lambda chain: chain.written(f"*/step-{epoch * STEPS:09}.ckpt")


def behind_epoch(epoch: int) -> Place:
    return lambda chain: chain.said(f"\nepoch={epoch} ")


def _interruptions(seed: int) -> Iterator[tuple[Place, int]]:
    """Twenty places in a random order; SIGTERM and SIGKILL in turn."""
    dice = random.Random(seed)
    places: list[Place] = [after(dice.uniform(0, 4)) for _ in range(8)]
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
    chain = Chain(tmp_path / "0", prepared_data, SETTINGS)
    for count, (place, number) in enumerate(points, 1):
        code = chain.run_until(place, number)
        # Where the signal comes before Python has a handler for it, it ends the launcher as it ends any program.
        assert code in (0, 143, -number), chain.log.read_text("utf-8")
        if code == 0:  # it was done before it was asked to stop: the next begins anew
            _unharmed(chain, undisturbed)
            chain = Chain(tmp_path / str(count), prepared_data, SETTINGS)
    chain.finish()
    _unharmed(chain, undisturbed)


def _unharmed(chain: Chain, weights: str) -> None:
    """The same was learned, at most one interval was lost to each kill, and no file was torn."""
    log = chain.log.read_text("utf-8")
    assert chain.job.weights() == weights
    assert chain.steps <= EPOCHS * STEPS + chain.kills, log
    assert "Traceback" not in log
    assert "damaged" not in log


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
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


@pytest.mark.long
@pytest.mark.parametrize("damage", [_flip, _folder])
def test_a_damaged_checkpoint_costs_one_interval_and_no_bit(
    damage: Callable[[Path], None], chain: Chain, undisturbed: str
) -> None:
    chain.run_until(behind_epoch(2), signal.SIGTERM)
    before, newest = chain.checkpoints()
    damage(newest)
    steps = chain.steps
    assert chain.finish() == undisturbed
    assert chain.said(f"checkpoint {newest.name} is damaged and passed over")
    assert chain.steps - steps == EPOCHS * STEPS - int(before.stem.removeprefix("step-"))


@pytest.mark.long
def test_when_all_checkpoints_are_damaged_the_run_starts_anew(chain: Chain, undisturbed: str) -> None:
    chain.run_until(behind_epoch(2), signal.SIGTERM)
    for file in chain.checkpoints():
        _flip(file)
    steps = chain.steps
    assert chain.finish() == undisturbed
    assert chain.log.read_text("utf-8").count("is damaged and passed over") == 2
    assert not chain.said("resuming")
    assert chain.steps - steps == EPOCHS * STEPS
