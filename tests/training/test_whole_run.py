"""Runs of the whole network in this process: what they learn, keep, refuse, and take up again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.splits_by_hand import write_channels  # noqa: E402
from training import checkpoint, engine  # noqa: E402
from training.data import Images  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.hyperparameters import Hyperparameters  # noqa: E402
from training.job import Job  # noqa: E402
from training.paths import Paths  # noqa: E402
from training.peers import Peers  # noqa: E402
from training.whole.run import train_whole  # noqa: E402

SMALL = {"model": "mobilenet_v3_small", "image_size": 16, "epochs": 2, "batch_size": 4, "precision": "float32"}


class _Flag:
    """Set once it was looked at so many times; may raise in place of it, as a kill does."""

    def __init__(self, after: int | None = None, error: type[BaseException] | None = None) -> None:
        self._left, self._error = after, error

    @property
    def is_set(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        if self._left < 0 and self._error:
            raise self._error
        return self._left < 0


def _stop(after: int | None = None, error: type[BaseException] | None = None) -> Any:
    return _Flag(after, error)


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """Jobs on 12 training and 5 validation images of two classes; the checkpoints are those of `root`."""
    torch.set_num_threads(1)

    def make(root: str = "ml", train: int = 12, **settings: Any) -> Job:
        if not (tmp_path / root).exists():
            write_channels(tmp_path / root, train)
        one = torch.device("cpu")
        return Job(Paths(tmp_path / root), Hyperparameters(**{**SMALL, **settings}), Peers(0, 1, one), one)

    return make


def _state(job: Job, stop: Any = None) -> Any:
    trained = train_whole(job, stop or _stop())
    return trained and {**trained.model.state_dict(), "logits": trained.logits, "history": _steady(trained.history)}


def _steady(history: list[dict[str, float]]) -> Any:
    return torch.tensor([[row[name] for name in row if name != "images_per_second"] for row in history])


def _same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_colours_are_told_apart_after_a_few_epochs(job: Callable[..., Job]) -> None:
    trained = train_whole(job(model="resnet18", train=24, epochs=4, batch_size=8, ema=0.5), _stop())
    assert trained
    assert [row["epoch"] for row in trained.history] == [1, 2, 3, 4]
    assert trained.history[-1]["train_loss"] < trained.history[0]["train_loss"]
    assert trained.history[-1]["valid_accuracy"] == 1
    assert trained.logits.argmax(1).tolist() == [0, 1, 0, 1, 0]


def test_the_logits_are_the_models_own_over_the_whole_validation_split(job: Callable[..., Job]) -> None:
    one = job()
    trained = train_whole(one, _stop())
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
    assert _state(job("stopped", **settings), _stop(look)) is None
    assert "stopped by SIGTERM" in capsys.readouterr().out
    assert _same(_state(job("stopped", **settings)), whole)
    assert "resuming at epoch=" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "found"), [("0", 1), ("", None), ("60", None)])
def test_checkpoints_are_as_frequent_as_told(
    seconds: str, found: int | None, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKPOINT_SECONDS", seconds)
    with pytest.raises(ZeroDivisionError):
        train_whole(job(), _stop(1, ZeroDivisionError))
    state, _ = checkpoint.newest(next(job().paths.checkpoints.glob("*"), Path("nowhere")))
    assert (state and state["progress"]["step"]) == found


def test_an_interval_that_is_no_number_is_refused(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKPOINT_SECONDS", "often")
    with pytest.raises(TrainingError, match="CHECKPOINT_SECONDS must be a number of seconds, not 'often'"):
        train_whole(job(), _stop())


def test_each_runs_checkpoints_lie_in_a_folder_of_their_own(job: Callable[..., Job]) -> None:
    for seed in (0, 1):
        assert _state(job(seed=seed), _stop(1)) is None
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


@pytest.mark.parametrize(("train", "batch_size"), [(12, 1), (1, 256)])
def test_a_batch_of_one_image_is_refused(train: int, batch_size: int, job: Callable[..., Job]) -> None:
    with pytest.raises(TrainingError, match=rf"{train} images in batches of {batch_size} leave one"):
        train_whole(job(train=train, batch_size=batch_size), _stop())


def test_one_image_a_class_is_enough(job: Callable[..., Job]) -> None:
    trained = train_whole(job(train=2, batch_size=256, epochs=1), _stop())
    assert trained
    assert trained.logits.shape == (5, 2)


def test_a_loss_that_is_not_finite_ends_the_run_with_its_batch(job: Callable[..., Job], tmp_path: Path) -> None:
    one = job()
    state = one.network().state_dict()
    torch.save({**state, "features.0.0.weight": state["features.0.0.weight"] * torch.nan}, tmp_path / "w.pth")
    (tmp_path / "ml/input/data/weights/weights.json").write_text('{"file": "../w.pth"}', "utf-8")
    (tmp_path / "w.pth").rename(tmp_path / "ml/input/data/weights/w.pth")
    with pytest.raises(TrainingError) as caught:
        train_whole(job(mode="whole", batch_size=6), _stop())
    told = str(caught.value)
    assert told.startswith("Training stopped at epoch 1, batch 1 of 2: the loss is nan. ")
    assert "learning_rate below 0.0029" in told
    named = told.split("the batch is ")[1]
    assert named.endswith(" and 1 more.")
    first = {one.train_split.samples[index].name for index in _first_batch(12, 6)}
    assert set(named.removesuffix(" and 1 more.").split(", ")) < first


def _first_batch(images: int, size: int) -> list[int]:
    from training.data import Share, train_plan

    return [index for index, _ in train_plan(images, size, Share(), seed=0, epoch=0)[0]]


def test_answers_that_are_not_finite_end_the_run_with_the_images_names(job: Callable[..., Job]) -> None:
    one = job()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "training.engine.answer", lambda *_: torch.tensor([[0.0, 1], [0, torch.inf], [1, 0], [1, 0], [1, 0]])
        )
        with pytest.raises(TrainingError, match=r"no finite answer for dog/1\.img of the channel valid"):
            train_whole(one, _stop())
