"""Whole-network training: what it learns, what it resumes, what it refuses, alone and on two ranks."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.hosts_of_a_job import ROOT, meeting_place  # noqa: E402
from tests.training.train.jobs import StopAfter, channel, whole_context, write_channels  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.train import checkpoint, engine  # noqa: E402
from training.train.context import TrainingContext  # noqa: E402
from training.train.data import Images, train_plan  # noqa: E402
from training.train.whole import train_whole  # noqa: E402

Make = Callable[..., TrainingContext]


@pytest.fixture
def job(tmp_path: Path, tiny_network: None) -> Make:
    """Small jobs; those of the same `root` share its checkpoints."""
    return lambda root="ml", **settings: whole_context(tmp_path / root, **settings)


def _state(context: TrainingContext, stop: Any = None) -> Any:
    trained = train_whole(context, stop or StopAfter())
    return trained and {**trained.model.state_dict(), "logits": trained.logits, "history": _steady(trained.history)}


def _steady(history: list[dict[str, float]]) -> Any:
    return torch.tensor([[row[name] for name in row if name != "images_per_second"] for row in history])


def _same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_colours_are_told_apart_after_a_few_epochs(job: Make) -> None:
    trained = train_whole(job(model="resnet18", train=24, epochs=4, batch_size=8, ema=0.5), StopAfter())
    assert trained
    assert [row["epoch"] for row in trained.history] == [1, 2, 3, 4]
    assert trained.history[-1]["train_loss"] < trained.history[0]["train_loss"]
    assert trained.history[-1]["valid_accuracy"] == 1
    assert trained.logits.argmax(1).tolist() == [0, 1, 0, 1, 0]


def test_the_training_loss_is_the_mean_over_the_epochs_images(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []
    step = engine.train_step

    def noted(*given: Any, **settings: Any) -> float:
        losses.append(step(*given, **settings))
        return losses[-1]

    monkeypatch.setattr(engine, "train_step", noted)
    trained = train_whole(job(), StopAfter())
    assert trained
    for row, seen in zip(trained.history, (losses[:3], losses[3:]), strict=True):
        assert row["train_loss"] == pytest.approx(sum(seen) / 3)


def test_the_logits_are_the_models_own_over_the_whole_validation_split(job: Make) -> None:
    one = job()
    trained = train_whole(one, StopAfter())
    assert trained
    images = Images(one.valid_split, one.preprocessing, augment=False)
    alone = engine.predict(trained.model, [images[index, 0][0][None] for index in range(5)])
    torch.testing.assert_close(trained.logits, alone, rtol=1e-4, atol=1e-5)
    labels = torch.tensor([0, 1, 0, 1, 0])
    loss = torch.nn.functional.cross_entropy(alone, labels).item()
    assert trained.history[-1]["valid_loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("look", [0, 1, 3, 4, 7, 9, 11])
def test_a_run_that_is_stopped_anywhere_ends_as_an_uninterrupted_one(
    look: int, job: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """An epoch's looks at the flag: three steps, two validation batches, and once behind them."""
    settings = {"mixup": 0.4, "ema": 0.9}
    whole = _state(job("whole", **settings))
    assert _state(job("stopped", **settings), StopAfter(look)) is None
    assert "stopped by SIGTERM" in capsys.readouterr().out
    assert _same(_state(job("stopped", **settings)), whole)
    assert "resuming at epoch=" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "found"), [("0", 1), ("", None), ("60", None)])
def test_checkpoints_are_as_frequent_as_the_environment_says(
    seconds: str, found: int | None, job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKPOINT_SECONDS", seconds)
    with pytest.raises(ZeroDivisionError):
        train_whole(job(), StopAfter(1, ZeroDivisionError))
    state = checkpoint.load_newest(next(job().paths.checkpoints.glob("*"), Path("nowhere")))
    assert (state and state["progress"]["step"]) == found


def test_each_runs_checkpoints_lie_in_a_folder_of_their_own(job: Make) -> None:
    for seed in (0, 1):
        assert _state(job(seed=seed), StopAfter(1)) is None
    folders = sorted(job().paths.checkpoints.iterdir())
    assert len(folders) == 2
    assert all(len(folder.name) == 16 and int(folder.name, 16) for folder in folders)
    assert [[file.suffix for file in folder.iterdir()] for folder in folders] == [[".ckpt"], [".ckpt"]]
    assert _same(_state(job(seed=1)), _state(job("other", seed=1)))


def test_a_finished_run_that_is_started_again_trains_nothing(job: Make, capsys: pytest.CaptureFixture[str]) -> None:
    first = _state(job(ema=0.5))
    capsys.readouterr()
    assert _same(_state(job(ema=0.5)), first)
    assert "epoch=1 " not in capsys.readouterr().out
    assert _state(job(ema=0.5), StopAfter(0)) is None
    assert "stopped by SIGTERM while validating; checkpoint written" in capsys.readouterr().out
    assert _same(_state(job(ema=0.5)), first)


def test_averaged_weights_are_returned_under_the_plain_names(job: Make) -> None:
    plain, averaged = _state(job("plain")), _state(job("averaged", ema=0.99))
    assert plain.keys() == averaged.keys()
    assert not torch.equal(plain["conv1.weight"], averaged["conv1.weight"])
    assert not torch.equal(plain["bn1.running_mean"], averaged["bn1.running_mean"])
    assert plain["history"][:, 1].tolist() == averaged["history"][:, 1].tolist()  # what learns is the same


def test_mixup_depends_on_the_seed_and_changes_with_each_step(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []
    draw = engine.draw_mixup_lambda

    def noted(alpha: float, seed: int) -> float:
        drawn.append(draw(alpha, seed))
        return drawn[-1]

    monkeypatch.setattr(engine, "draw_mixup_lambda", noted)
    one, again, without = (_state(job(root, mixup=mixup)) for root, mixup in (("a", 1.0), ("b", 1.0), ("c", 0.0)))
    assert _same(one, again)
    assert not torch.equal(one["conv1.weight"], without["conv1.weight"])
    assert len(set(drawn[:6])) == 6  # two epochs of three steps
    assert drawn[:6] == drawn[6:12]


def test_bfloat16_trains_and_validates(job: Make) -> None:
    exact, rough = (_state(job(kind, precision=kind, epochs=1)) for kind in ("float32", "bfloat16"))
    assert exact["history"][0, 1] != rough["history"][0, 1]  # train_loss
    assert rough["logits"].dtype == rough["conv1.weight"].dtype == torch.float32
    assert torch.equal(rough["logits"], rough["logits"].bfloat16().float())
    torch.testing.assert_close(rough["logits"], exact["logits"], rtol=0.2, atol=0.3)


def test_one_image_a_class_is_enough(job: Make) -> None:
    trained = train_whole(job(train=2, batch_size=256, epochs=1), StopAfter())
    assert trained
    assert trained.logits.shape == (5, 2)


def test_an_interval_that_is_no_number_is_refused(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKPOINT_SECONDS", "often")
    with pytest.raises(TrainingError, match="CHECKPOINT_SECONDS must be a number of seconds, not 'often'"):
        train_whole(job(), StopAfter())


@pytest.mark.parametrize(("train", "batch_size"), [(12, 1), (1, 256)])
def test_a_batch_of_one_image_is_refused(train: int, batch_size: int, job: Make) -> None:
    with pytest.raises(TrainingError, match=rf"{train} images in batches of {batch_size} leave one"):
        train_whole(job(train=train, batch_size=batch_size), StopAfter())


def test_a_loss_that_is_not_finite_ends_the_run_with_its_batch(job: Make, tmp_path: Path) -> None:
    one = job()
    state = one.build_network().state_dict()
    weights = channel(tmp_path / "ml", "weights")
    torch.save({**state, "conv1.weight": state["conv1.weight"] * torch.nan}, weights / "w.pth")
    (weights / "weights.json").write_text('{"file": "w.pth"}', "utf-8")
    with pytest.raises(TrainingError) as caught:
        train_whole(job(mode="whole", batch_size=6), StopAfter())
    message = str(caught.value)
    assert message.startswith("Training stopped at epoch 1, batch 1 of 2: the loss is nan. ")
    assert "learning_rate below 0.0029" in message
    named = message.split("the batch is ")[1]
    assert named.endswith(" and 1 more.")
    first = {one.train_split.samples[index].name for index in _first_batch(12, 6)}
    assert set(named.removesuffix(" and 1 more.").split(", ")) < first


def _first_batch(images: int, size: int) -> list[int]:
    return [index for index, _ in train_plan(images, size, seed=0, epoch=0)[0]]


def test_answers_that_are_not_finite_end_the_run_with_the_images_names(
    job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = torch.tensor([[0.0, 1.0], [0.0, torch.inf], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    monkeypatch.setattr("training.train.engine.predict", lambda *given: answers)
    with pytest.raises(TrainingError, match=r"no finite answer for dog/1\.img of the channel valid"):
        train_whole(job(), StopAfter())


def test_without_a_compiler_the_setting_is_refused(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(TrainingError, match=r"compile=yes needs a C\+\+ compiler, but no-such-compiler is not here"):
        train_whole(job(compile="yes"), StopAfter())
    assert train_whole(job(compile="no", epochs=1), StopAfter())


@pytest.mark.long
def test_a_compiler_that_fails_ends_the_run_with_one_sentence(
    job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    broken: Any = importlib.import_module("torch._inductor.config").patch({"cpp.cxx": (None, "false")})
    with broken, pytest.raises(TrainingError, match="The network could not be compiled") as caught:
        train_whole(job(compile="yes"), StopAfter())
    assert str(caught.value).endswith("; set compile=no.")
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_a_compiled_network_learns_what_the_plain_one_learns_under_the_same_names(
    job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("torch.nn.functional.dropout", lambda images, *given: images)  # drawn otherwise when compiled
    plain, compiled = (_state(job(compile=setting)) for setting in ("no", "yes"))
    assert plain.keys() == compiled.keys()
    torch.testing.assert_close(compiled["history"], plain["history"], rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(compiled["fc.weight"], plain["fc.weight"], rtol=1e-2, atol=1e-3)
    assert plain["history"][0, 1] != plain["history"][1, 1]


TWO_RANKS = """
import os, sys, torch
from pathlib import Path
from jobs import StopAfter, TinyNetwork, WHOLE
from training.distributed.process_group import ProcessGroup
from training.hyperparameters import Hyperparameters
from training.paths import Paths
from training.train import context, engine
from training.train.data import Images
from training.train.whole import train_whole

torch.set_num_threads(1)
context.build_network = lambda architecture: TinyNetwork(architecture.classes)
other = os.fork()
os.environ["RANK"] = "0" if other else "1"
with ProcessGroup.initialize(torch.device("cpu")) as group:
    for root in sys.argv[1:]:
        job = context.TrainingContext(Paths(Path(root)), Hyperparameters(**WHOLE, ema=0.5), group)
        trained = train_whole(job, StopAfter())
        images = Images(job.valid_split, job.preprocessing, augment=False)
        alone = engine.predict(trained.model, [images[n, 0][0][None] for n in range(len(images))])
        torch.save({"together": trained.logits, "alone": alone}, f"{root}/answers-{group.rank}.pt")
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


@pytest.mark.long
def test_all_ranks_answer_with_the_statistics_that_are_exported(tmp_path: Path) -> None:
    """Each rank's batch normalization sees other images; with one validation image the second rank has none."""
    roots = {count: tmp_path / str(count) for count in (1, 5)}
    for count, root in roots.items():
        write_channels(root, valid=count)
    environment = {
        **os.environ,
        **meeting_place(),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "PROCESS_GROUP_TIMEOUT_SECONDS": "200",
    }
    environment["PYTHONPATH"] = f"{ROOT}:{Path(__file__).parent}"
    command = [sys.executable, "-W", "ignore", "-c", TWO_RANKS, *map(str, roots.values())]
    subprocess.run(command, env=environment, check=True, timeout=240)
    for count, root in roots.items():
        first, second = (torch.load(root / f"answers-{rank}.pt", weights_only=True) for rank in (0, 1))
        assert first["together"].shape == (count, 2)
        assert torch.equal(first["together"], second["together"])
        torch.testing.assert_close(first["together"], first["alone"], rtol=1e-4, atol=1e-6)
        assert torch.equal(first["alone"], second["alone"])
