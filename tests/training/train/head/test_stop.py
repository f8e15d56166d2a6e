"""Head mode interrupted anywhere, in this process: what is done is kept, and the end is the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.train.jobs import StopAfter, chunks, head_context, weights_of, write_head_job  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.train import checkpoint  # noqa: E402
from training.train.head.train import train_head  # noqa: E402

SETTINGS: dict[str, Any] = {"views": 1, "trials": 2, "epochs": 2}


@pytest.fixture
def root(tmp_path: Path, tiny_network: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Jobs with the same 20 training and 9 validation images; after each batch a chunk is written."""
    monkeypatch.setenv("CHECKPOINT_SECONDS", "0")
    return lambda name: write_head_job(tmp_path / name)


@pytest.mark.long
def test_a_run_that_is_stopped_again_and_again_ends_as_an_uninterrupted_one(
    root: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each start goes one look at the flag further than the one before: batches, rounds, trials, epochs."""
    whole = train_head(head_context(root("whole"), **SETTINGS), StopAfter())
    stopped, trained, looks, reused = root("stopped"), None, 0, []
    while trained is None:
        assert looks < 40
        capsys.readouterr()
        trained = train_head(head_context(stopped, **SETTINGS), StopAfter(looks))
        output = capsys.readouterr().out
        assert trained or "stopped by SIGTERM" in output
        reused.append(len(chunks(stopped)))
        looks += 1
    assert looks > 7
    assert reused == sorted(reused)
    assert len(set(reused)) > 3  # what was computed before the signal was kept each time
    assert weights_of(trained) == weights_of(whole)
    assert whole
    assert trained.trials == whole.trials
    assert [row["valid_loss"] for row in trained.history] == [row["valid_loss"] for row in whole.history]


def test_a_signal_before_anything_was_done_ends_the_run(
    root: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_head(head_context(root("ml")), StopAfter(0)) is None
    assert "stopped by SIGTERM; the features that were computed are written" in capsys.readouterr().out


def test_a_head_goes_on_from_its_checkpoint(root: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    settings: dict[str, Any] = {"epochs": 6, "trials": 1}
    whole, place = train_head(head_context(root("whole"), **settings), StopAfter()), root("stopped")
    assert train_head(head_context(place, epochs=1, trials=1), StopAfter())  # the features are known
    capsys.readouterr()
    assert train_head(head_context(place, **settings), StopAfter(2)) is None
    assert "epoch=3 " in capsys.readouterr().out
    resumed = train_head(head_context(place, **settings), StopAfter())
    output = capsys.readouterr().out
    assert "resuming at epoch=4" in output
    assert "epoch=3 " not in output
    assert weights_of(resumed) == weights_of(whole)
    assert resumed
    assert [row["epoch"] for row in resumed.history] == [1, 2, 3, 4, 5, 6]


def test_a_damaged_checkpoint_of_the_head_costs_time_only(
    root: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    place = root("ml")
    first = train_head(head_context(place, trials=1), StopAfter())
    for file in (place / "checkpoints").glob("*/step-*.ckpt"):
        file.write_bytes(file.read_bytes()[:-1])
    again = train_head(head_context(place, trials=1), StopAfter())
    assert "is damaged and passed over" in capsys.readouterr().out
    assert weights_of(again) == weights_of(first)


def test_a_short_training_writes_no_checkpoint(root: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHECKPOINT_SECONDS")
    place = root("ml")
    train_head(head_context(place, trials=1), StopAfter())
    assert [file.name for file in (place / "checkpoints").iterdir()] == ["features"]
    assert checkpoint.load_newest(place / "checkpoints") is None


def test_an_interval_that_is_no_number_is_refused(root: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKPOINT_SECONDS", "often")
    with pytest.raises(TrainingError, match="CHECKPOINT_SECONDS must be a number of seconds, not 'often'"):
        train_head(head_context(root("ml")), StopAfter())
