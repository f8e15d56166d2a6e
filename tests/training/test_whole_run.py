"""Runs of the whole network in this process: what they learn, keep, refuse, and take up again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.splits_by_hand import small_job, stop  # noqa: E402
from training.train import checkpoint, engine  # noqa: E402
from training.train.data import Images  # noqa: E402
from training.train.job import Job  # noqa: E402
from training.train.whole.run import train_whole  # noqa: E402


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """Small jobs; those of the same `root` share its checkpoints."""
    return lambda root="ml", **settings: small_job(tmp_path / root, **settings)


def _state(job: Job, told: Any = None) -> Any:
    trained = train_whole(job, told or stop())
    return trained and {**trained.model.state_dict(), "logits": trained.logits, "history": _steady(trained.history)}


def _steady(history: list[dict[str, float]]) -> Any:
    return torch.tensor([[row[name] for name in row if name != "images_per_second"] for row in history])


def _same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_colours_are_told_apart_after_a_few_epochs(job: Callable[..., Job]) -> None:
    trained = train_whole(job(model="resnet18", train=24, epochs=4, batch_size=8, ema=0.5), stop())
    assert trained
    assert [row["epoch"] for row in trained.history] == [1, 2, 3, 4]
    assert trained.history[-1]["train_loss"] < trained.history[0]["train_loss"]
    assert trained.history[-1]["valid_accuracy"] == 1
    assert trained.logits.argmax(1).tolist() == [0, 1, 0, 1, 0]


def test_the_training_loss_is_the_mean_over_the_epochs_images(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    step = engine.train_step

    def noted(*given: Any, **settings: Any) -> float:
        losses.append(step(*given, **settings))
        return losses[-1]

    monkeypatch.setattr(engine, "train_step", noted)
    trained = train_whole(job(), stop())
    assert trained
    for row, seen in zip(trained.history, (losses[:3], losses[3:]), strict=True):
        assert row["train_loss"] == pytest.approx(sum(seen) / 3)


def test_the_logits_are_the_models_own_over_the_whole_validation_split(job: Callable[..., Job]) -> None:
    one = job()
    trained = train_whole(one, stop())
    assert trained
    images = Images(one.valid_split, one.how, augment=False)
    alone = engine.answer(trained.model, [images[index, 0][0][None] for index in range(5)], torch.float32)
    torch.testing.assert_close(trained.logits, alone, rtol=1e-4, atol=1e-5)
    labels = torch.tensor([0, 1, 0, 1, 0])
    loss = torch.nn.functional.cross_entropy(alone, labels).item()
    assert trained.history[-1]["valid_loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("look", [0, 1, 3, 4, 7, 9, 11])
def test_a_run_that_is_stopped_anywhere_ends_as_an_uninterrupted_one(
    look: int, job: Callable[..., Job], capsys: pytest.CaptureFixture[str]
) -> None:
    """An epoch's looks at the flag: three steps, two validation batches, and once behind them."""
    settings = {"mixup": 0.4, "ema": 0.9}
    whole = _state(job("whole", **settings))
    assert _state(job("stopped", **settings), stop(look)) is None
    assert "stopped by SIGTERM" in capsys.readouterr().out
    assert _same(_state(job("stopped", **settings)), whole)
    assert "resuming at epoch=" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "found"), [("0", 1), ("", None), ("60", None)])
def test_checkpoints_are_as_frequent_as_told(
    seconds: str, found: int | None, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKPOINT_SECONDS", seconds)
    with pytest.raises(ZeroDivisionError):
        train_whole(job(), stop(1, ZeroDivisionError))
    state, _ = checkpoint.newest(next(job().paths.checkpoints.glob("*"), Path("nowhere")))
    assert (state and state["progress"]["step"]) == found


def test_each_runs_checkpoints_lie_in_a_folder_of_their_own(job: Callable[..., Job]) -> None:
    for seed in (0, 1):
        assert _state(job(seed=seed), stop(1)) is None
    folders = sorted(job().paths.checkpoints.iterdir())
    assert len(folders) == 2
    assert all(len(folder.name) == 16 and int(folder.name, 16) for folder in folders)
    assert [[file.suffix for file in folder.iterdir()] for folder in folders] == [[".ckpt"], [".ckpt"]]
    assert _same(_state(job(seed=1)), _state(job("other", seed=1)))


def test_a_finished_run_that_is_started_again_trains_nothing(
    job: Callable[..., Job], capsys: pytest.CaptureFixture[str]
) -> None:
    first = _state(job(ema=0.5))
    capsys.readouterr()
    assert _same(_state(job(ema=0.5)), first)
    assert "epoch=1 " not in capsys.readouterr().out


def test_averaged_weights_are_what_is_kept_under_the_plain_names(job: Callable[..., Job]) -> None:
    plain, averaged = _state(job("plain")), _state(job("averaged", ema=0.99))
    assert plain.keys() == averaged.keys()
    assert not torch.equal(plain["features.0.0.weight"], averaged["features.0.0.weight"])
    assert not torch.equal(plain["features.0.1.running_mean"], averaged["features.0.1.running_mean"])
    assert plain["history"][:, 1].tolist() == averaged["history"][:, 1].tolist()  # what learns is the same


def test_mixup_depends_on_the_seed_and_changes_with_each_step(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[float] = []
    draw = engine.mixup_share

    def noted(alpha: float, seed: int) -> float:
        drawn.append(draw(alpha, seed))
        return drawn[-1]

    monkeypatch.setattr(engine, "mixup_share", noted)
    one, again, without = (_state(job(root, mixup=mixup)) for root, mixup in (("a", 1.0), ("b", 1.0), ("c", 0.0)))
    assert _same(one, again)
    assert not torch.equal(one["features.0.0.weight"], without["features.0.0.weight"])
    assert len(set(drawn[:6])) == 6  # two epochs of three steps
    assert drawn[:6] == drawn[6:12]


def test_bfloat16_trains_and_validates(job: Callable[..., Job]) -> None:
    exact, rough = (_state(job(kind, precision=kind, epochs=1)) for kind in ("float32", "bfloat16"))
    assert exact["history"][0, 1] != rough["history"][0, 1]  # train_loss
    assert rough["logits"].dtype == rough["features.0.0.weight"].dtype == torch.float32
    assert torch.equal(rough["logits"], rough["logits"].bfloat16().float())
    torch.testing.assert_close(rough["logits"], exact["logits"], rtol=0.2, atol=0.3)


def test_one_image_a_class_is_enough(job: Callable[..., Job]) -> None:
    trained = train_whole(job(train=2, batch_size=256, epochs=1), stop())
    assert trained
    assert trained.logits.shape == (5, 2)
