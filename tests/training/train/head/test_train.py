"""The head on features: what it learns, from which rows, and what it becomes in the network."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.train.jobs import (  # noqa: E402
    CPU,
    StopAfter,
    head_context,
    weights_of,
    write_channels,
    write_head_job,
)
from training.errors import TrainingError  # noqa: E402
from training.hyperparameters import Hyperparameters  # noqa: E402
from training.train.context import choose_precision, precision_name  # noqa: E402
from training.train.data import Images  # noqa: E402
from training.train.head.backbone import choose_backbone_precision, precision_without_int8  # noqa: E402
from training.train.head.features import Features  # noqa: E402
from training.train.head.fit import FeatureSet, TrainedHead, fit  # noqa: E402
from training.train.head.train import train_head  # noqa: E402
from training.train.model import Architecture, build_network  # noqa: E402

WIDTH, COUNT = 6, 40


def _settings(**changed: Any) -> Hyperparameters:
    return Hyperparameters(**{"epochs": 8, "batch_size": 8, "learning_rate": 0.05, "views": 0, **changed})


def _features(views: int = 0, offset: float = 0.0) -> FeatureSet:
    """Two classes of points, far apart in the first column; the last column never changes."""
    chance = torch.Generator().manual_seed(1)
    labels = torch.arange(COUNT) % 2
    rows = torch.randn(COUNT * (1 + views), WIDTH, generator=chance)
    rows[:, 0] += 6 * (labels.repeat(1 + views) - 0.5)
    rows = rows * 10 + offset
    rows[:, -1] = 3.0
    mean, std = rows[:COUNT].double().mean(0), rows[:COUNT].double().std(0, correction=0)
    std[-1] = 1
    rows = ((rows - mean) / std).float()
    return FeatureSet(rows, labels, rows[:COUNT].clone(), labels, 2, mean, std)


def _fit(features: FeatureSet, settings: Hyperparameters) -> TrainedHead:
    fitted = fit(features, settings, lambda: False)
    assert fitted
    return fitted


def _same(one: TrainedHead, other: TrainedHead) -> bool:
    return bool(torch.equal(one.head.weight, other.head.weight) and torch.equal(one.head.bias, other.head.bias))


def test_a_head_learns_and_logs_each_epoch() -> None:
    lines: list[str] = []
    fitted = fit(_features(), _settings(), lambda: False, lines.append)
    assert fitted
    assert [int(re.findall(r"epoch=(\d+) ", line)[0]) for line in lines] == list(range(1, 9))
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]
    assert fitted.history[-1]["valid_accuracy"] == 1
    assert f"valid_accuracy={fitted.history[2]['valid_accuracy']:.6f}" in lines[2]
    loss = torch.nn.functional.cross_entropy(fitted.logits, _features().valid_labels).item()
    assert fitted.history[fitted.epoch - 1]["valid_loss"] == pytest.approx(loss)


def test_the_head_is_the_best_epochs() -> None:
    """Validation contradicts training, so that what is learned makes it worse from the first epoch on."""
    features = replace(_features(), valid_labels=1 - _features().valid_labels)
    fitted = _fit(features, _settings())
    losses = [row["valid_loss"] for row in fitted.history]
    assert len(losses) == 8
    assert fitted.epoch == 1
    assert losses[0] == min(losses) < losses[-1]
    assert fitted.accuracy == fitted.history[0]["valid_accuracy"]
    loss = torch.nn.functional.cross_entropy(fitted.logits, features.valid_labels).item()
    assert losses[0] == pytest.approx(loss)


def test_the_same_seed_gives_the_same_head_and_another_one_another() -> None:
    one = _fit(_features(), _settings())
    torch.manual_seed(99)
    assert _same(_fit(_features(), _settings()), one)
    assert not _same(_fit(_features(), _settings(seed=1)), one)


def test_only_the_chosen_views_are_trained_on() -> None:
    features, plain = _features(views=2), _fit(_features(views=2), _settings())
    features.train[COUNT:] = float("nan")
    assert _same(_fit(features, _settings()), plain)
    features = _features(views=2)
    features.train[2 * COUNT :] = float("nan")
    assert not _same(_fit(features, _settings(views=1)), plain)
    with pytest.raises(TrainingError):
        _fit(features, _settings(views=2))


def test_a_view_has_the_labels_of_its_images() -> None:
    features = _features(views=1)
    features.train[:COUNT] = 0  # nothing to learn from the plain images
    assert _fit(features, _settings(views=1, epochs=20)).history[-1]["valid_accuracy"] == 1


def test_a_loss_beyond_all_numbers_names_epoch_and_batch() -> None:
    features = _features()
    features.train[:] = 3e38
    with pytest.raises(TrainingError, match=r"stopped at epoch 1, batch 1 of 5: .*learning_rate below 0\.05"):
        _fit(features, _settings())


def test_a_folded_head_answers_on_raw_features_what_it_answered_on_standardized_ones() -> None:
    features = _features(offset=500.0)
    fitted = _fit(features, _settings())
    raw = (features.valid.double() * features.std + features.mean).float()
    torch.testing.assert_close(features.unstandardize(fitted.head)(raw), fitted.logits, rtol=1e-3, atol=1e-3)


def test_features_are_standardized_by_the_plain_training_images(tmp_path: Path, tiny_network: None) -> None:
    job = head_context(write_head_job(tmp_path / "ml"), views=1)
    rows = torch.randn(40, 3) * torch.tensor([1.0, 100.0, 0.0]) + 7
    features = FeatureSet.standardized(Features(rows.clone(), rows[:9].clone(), "key"), job)
    torch.testing.assert_close(features.train[:20].mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.train[:20].std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]))
    assert torch.equal(features.valid, features.train[:9])
    back = features.train.double() * features.std + features.mean
    torch.testing.assert_close(back.float(), rows, rtol=1e-5, atol=1e-4)


def test_the_trained_network_tells_classes_apart_by_itself(tmp_path: Path) -> None:
    """With a network of torchvision's, as all of it is."""
    root = tmp_path / "ml"
    write_channels(root, 20, 9)
    write_head_job(root, build_network(Architecture("resnet18", "small", 7)))
    job = head_context(root, views=1, epochs=20, learning_rate=0.01)
    backbone = {name: value for name, value in job.build_network().state_dict().items() if not name.startswith("fc.")}
    trained = train_head(job, StopAfter())
    assert trained
    images = Images(job.valid_split, job.preprocessing, augment=False)
    with torch.inference_mode():
        answers = trained.model.eval()(torch.stack([images[index, 0][0] for index in range(9)]))
    torch.testing.assert_close(answers, trained.logits, rtol=1e-3, atol=1e-3)
    assert answers.argmax(1).tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert len(trained.history) == 20
    state = trained.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in backbone.items())
    again = train_head(head_context(root, views=1, epochs=20, learning_rate=0.01), StopAfter())
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
def test_auto_takes_the_fastest_precision_that_pays(
    flags: set[str], images: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.distributed.cluster.cpu_flags", lambda: flags)
    assert precision_name(choose_backbone_precision(Hyperparameters(), CPU, images)) == chosen
    assert choose_backbone_precision(Hyperparameters(precision="int8"), CPU, 1) == torch.int8
    assert choose_backbone_precision(Hyperparameters(model="efficientnet_b0"), CPU, 5000) != torch.int8
    assert choose_backbone_precision(Hyperparameters(precision="float32"), CPU, 5000) == torch.float32
    assert precision_without_int8(Hyperparameters(precision="int8"), CPU) != torch.int8


def test_int8_is_for_backbones_that_do_not_learn() -> None:
    with pytest.raises(TrainingError, match="precision=int8 is for mode=head only"):
        choose_precision("int8", CPU, mode="whole")
    assert choose_precision("int8", CPU, mode="head") == torch.int8
