"""The head on features: what it learns, from which rows, and what it becomes in the network."""

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training import head_jobs  # noqa: E402
from tests.training.head_jobs import flag, head_job, weights_of  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.hyperparameters import Hyperparameters  # noqa: E402
from training.train.data import Images  # noqa: E402
from training.train.device import choose_precision  # noqa: E402
from training.train.head import precision as arithmetic  # noqa: E402
from training.train.head.features import Features  # noqa: E402
from training.train.head.fit import Fitted, Lesson, fit  # noqa: E402
from training.train.head.run import train_head  # noqa: E402

WIDTH, COUNT = 6, 40


@pytest.fixture(autouse=True)
def _alone() -> None:
    torch.set_num_threads(1)


def _settings(**changed: Any) -> Hyperparameters:
    return Hyperparameters(**{"epochs": 8, "batch_size": 8, "learning_rate": 0.05, "views": 0, **changed})


def _lesson(views: int = 0, offset: float = 0.0) -> Lesson:
    """Two classes of points, far apart in the first column; the last column never changes."""
    chance = torch.Generator().manual_seed(1)
    labels = torch.arange(COUNT) % 2
    rows = torch.randn(COUNT * (1 + views), WIDTH, generator=chance)
    rows[:, 0] += 6 * (labels.repeat(1 + views) - 0.5)
    rows = rows * 10 + offset
    rows[:, -1] = 3.0
    mean, deviation = rows[:COUNT].double().mean(0), rows[:COUNT].double().std(0, correction=0)
    deviation[-1] = 1
    rows = ((rows - mean) / deviation).float()
    return Lesson(rows, labels, rows[:COUNT].clone(), labels, 2, mean, deviation)


def _fit(lesson: Lesson, settings: Hyperparameters) -> Fitted:
    fitted = fit(lesson, settings, lambda: False, lambda line: None)
    assert fitted
    return fitted


def _same(one: Fitted, other: Fitted) -> bool:
    return bool(torch.equal(one.head.weight, other.head.weight) and torch.equal(one.head.bias, other.head.bias))


def test_a_head_learns_and_says_each_epoch() -> None:
    lines: list[str] = []
    fitted = fit(_lesson(), _settings(), lambda: False, lines.append)
    assert fitted
    assert [int(re.findall(r"epoch=(\d+) ", line)[0]) for line in lines] == list(range(1, 9))
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]
    assert fitted.history[-1]["valid_accuracy"] == 1
    assert f"valid_accuracy={fitted.history[2]['valid_accuracy']:.6f}" in lines[2]
    loss = torch.nn.functional.cross_entropy(fitted.logits, _lesson().valid_labels).item()
    assert fitted.history[-1]["valid_loss"] == pytest.approx(loss)


def test_the_same_seed_gives_the_same_head_and_another_one_another() -> None:
    one = _fit(_lesson(), _settings())
    torch.manual_seed(99)
    assert _same(_fit(_lesson(), _settings()), one)
    assert not _same(_fit(_lesson(), _settings(seed=1)), one)


def test_only_the_views_that_are_asked_for_are_learnt_from() -> None:
    lesson, plain = _lesson(views=2), _fit(_lesson(views=2), _settings())
    lesson.train[COUNT:] = float("nan")
    assert _same(_fit(lesson, _settings()), plain)
    lesson = _lesson(views=2)
    lesson.train[2 * COUNT :] = float("nan")
    assert not _same(_fit(lesson, _settings(views=1)), plain)
    with pytest.raises(TrainingError):
        _fit(lesson, _settings(views=2))


def test_a_view_has_the_labels_of_its_images() -> None:
    lesson = _lesson(views=1)
    lesson.train[:COUNT] = 0  # nothing to learn from the plain pictures
    assert _fit(lesson, _settings(views=1, epochs=20)).history[-1]["valid_accuracy"] == 1


def test_a_loss_beyond_all_numbers_names_epoch_and_batch() -> None:
    lesson = _lesson()
    lesson.train[:] = 3e38
    with pytest.raises(TrainingError, match=r"stopped at epoch 1, batch 1 of 5: .*learning_rate below 0\.05"):
        _fit(lesson, _settings())


def test_a_folded_head_answers_on_raw_features_what_it_answered_on_standardized_ones() -> None:
    lesson = _lesson(offset=500.0)
    fitted = _fit(lesson, _settings())
    raw = (lesson.valid.double() * lesson.deviation + lesson.mean).float()
    torch.testing.assert_close(lesson.fold(fitted.head)(raw), fitted.logits, rtol=1e-3, atol=1e-3)


def test_features_are_standardized_by_the_plain_training_images(tmp_path: Path) -> None:
    head_jobs.write_job(tmp_path, train=20, valid=9)
    job = head_job(tmp_path, views=1)
    rows = torch.randn(40, 3) * torch.tensor([1.0, 100.0, 0.0]) + 7
    lesson = Lesson.of(job, Features(rows.clone(), rows[:9].clone(), "key"))
    torch.testing.assert_close(lesson.train[:20].mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(lesson.train[:20].std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]))
    assert torch.equal(lesson.valid, lesson.train[:9])
    back = lesson.train.double() * lesson.deviation + lesson.mean
    torch.testing.assert_close(back.float(), rows, rtol=1e-5, atol=1e-4)


def test_the_trained_network_tells_classes_apart_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head_jobs.export_once(monkeypatch)
    head_jobs.write_job(tmp_path)
    job = head_job(tmp_path, views=1, epochs=20, learning_rate=0.01)
    backbone = {name: value for name, value in job.network().state_dict().items() if not name.startswith("fc.")}
    trained = train_head(job, flag())
    assert trained
    images = Images(job.valid_split, job.how, augment=False)
    with torch.inference_mode():
        answers = trained.model.eval()(torch.stack([images[index, 0][0] for index in range(9)]))
    torch.testing.assert_close(answers, trained.logits, rtol=1e-3, atol=1e-3)
    assert answers.argmax(1).tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert len(trained.history) == 20
    state = trained.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in backbone.items())
    again = train_head(head_job(tmp_path, views=1, epochs=20, learning_rate=0.01), flag())
    assert weights_of(again) == weights_of(trained)


@pytest.mark.parametrize(
    ("flags", "images", "chosen"),
    [
        ({"amx_bf16", "avx512_vnni"}, 5000, "bfloat16"),
        ({"avx512_vnni", "avx512_bf16"}, 5000, "int8"),
        ({"avx_vnni"}, 512, "int8"),
        ({"avx512_vnni", "avx512_bf16"}, 511, "bfloat16"),
        ({"avx512_vnni"}, 511, "float32"),
        ({"avx2"}, 5000, "float32"),
    ],
)
def test_auto_takes_the_fastest_arithmetic_that_pays(
    flags: set[str], images: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("training.cpu", "training.train.head.precision"):
        monkeypatch.setattr(f"{module}.cpu_flags", lambda: flags)
    cpu = torch.device("cpu")
    assert arithmetic.name_of(arithmetic.choose(Hyperparameters(), cpu, images)) == chosen
    assert arithmetic.choose(Hyperparameters(precision="int8"), cpu, 1) == torch.int8
    assert arithmetic.choose(Hyperparameters(precision="float32"), cpu, 5000) == torch.float32
    assert arithmetic.without_int8(Hyperparameters(precision="int8"), cpu) != torch.int8


def test_int8_is_for_backbones_that_do_not_learn() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(TrainingError, match="precision=int8 is for mode=head only"):
        choose_precision("int8", cpu, mode="whole")
    assert choose_precision("int8", cpu, mode="head") == torch.int8
