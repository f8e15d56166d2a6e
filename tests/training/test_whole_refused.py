"""What ends a run of the whole network with one sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.splits_by_hand import small_job, stop  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.train.data import Share, train_plan  # noqa: E402
from training.train.job import Job  # noqa: E402
from training.train.whole.run import train_whole  # noqa: E402


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    return lambda **settings: small_job(tmp_path / "ml", **settings)


def test_an_interval_that_is_no_number_is_refused(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKPOINT_SECONDS", "often")
    with pytest.raises(TrainingError, match="CHECKPOINT_SECONDS must be a number of seconds, not 'often'"):
        train_whole(job(), stop())


@pytest.mark.parametrize(("train", "batch_size"), [(12, 1), (1, 256)])
def test_a_batch_of_one_image_is_refused(train: int, batch_size: int, job: Callable[..., Job]) -> None:
    with pytest.raises(TrainingError, match=rf"{train} images in batches of {batch_size} leave one"):
        train_whole(job(train=train, batch_size=batch_size), stop())


def test_a_loss_that_is_not_finite_ends_the_run_with_its_batch(job: Callable[..., Job], tmp_path: Path) -> None:
    one = job()
    state = one.network().state_dict()
    weights = tmp_path / "ml/input/data/weights"
    torch.save({**state, "features.0.0.weight": state["features.0.0.weight"] * torch.nan}, weights / "w.pth")
    (weights / "weights.json").write_text('{"file": "w.pth"}', "utf-8")
    with pytest.raises(TrainingError) as caught:
        train_whole(job(mode="whole", batch_size=6), stop())
    told = str(caught.value)
    assert told.startswith("Training stopped at epoch 1, batch 1 of 2: the loss is nan. ")
    assert "learning_rate below 0.0029" in told
    named = told.split("the batch is ")[1]
    assert named.endswith(" and 1 more.")
    first = {one.train_split.samples[index].name for index in _first_batch(12, 6)}
    assert set(named.removesuffix(" and 1 more.").split(", ")) < first


def _first_batch(images: int, size: int) -> list[int]:
    return [index for index, _ in train_plan(images, size, Share(), seed=0, epoch=0)[0]]


def test_answers_that_are_not_finite_end_the_run_with_the_images_names(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = torch.tensor([[0.0, 1.0], [0.0, torch.inf], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    monkeypatch.setattr("training.train.engine.answer", lambda *given: answers)
    with pytest.raises(TrainingError, match=r"no finite answer for dog/1\.img of the channel valid"):
        train_whole(job(), stop())
