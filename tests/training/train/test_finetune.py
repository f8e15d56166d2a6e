"""Finetune mode: the head first, then every layer from there; it stops, goes on and is never worse than its head."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.train.jobs import StopAfter, head_context, weights_of, write_channels, write_head_job  # noqa: E402
from training.calibration import calibrated_loss  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.hyperparameters import Hyperparameters  # noqa: E402
from training.train import engine  # noqa: E402
from training.train.context import TrainedModel, resolve_mode  # noqa: E402
from training.train.finetune import finetune  # noqa: E402
from training.train.head.train import train_head  # noqa: E402
from training.train.model import Architecture, build_network  # noqa: E402

SETTINGS: dict[str, Any] = {"mode": "finetune", "trials": 2, "epochs": 2, "batch_size": 10, "finetune_rate": 0.002}


@pytest.fixture
def root(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        write_channels(tmp_path / name, 20, 9)
        torch.manual_seed(0)
        return write_head_job(tmp_path / name, build_network(Architecture("resnet18", "small", 7)))

    return make


def _finetune(root: Path, stop: Any = None, **settings: Any) -> TrainedModel | None:
    return finetune(head_context(root, **{**SETTINGS, **settings}), stop or StopAfter())


def test_every_layer_learns_after_the_head(root: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    place = root("ml")
    context = head_context(place, **SETTINGS)
    before = context.build_network().state_dict()
    trained = _finetune(place)
    assert trained
    output = capsys.readouterr().out
    assert [line.split()[0] for line in output.splitlines() if line.startswith("epoch=")] == ["epoch=1", "epoch=2"]
    assert len(trained.trials) == 2
    kept = "kept=whole" in output
    assert kept is (not torch.equal(trained.model.state_dict()["conv1.weight"], before["conv1.weight"]))
    head = train_head(head_context(place, **SETTINGS), StopAfter())
    assert head
    labels = context.labels()[1].numpy()
    losses = [calibrated_loss(one.logits.float().numpy(), labels)[0] for one in (trained, head)]
    assert losses[0] <= losses[1]


def test_what_learns_nothing_leaves_the_head(root: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    place = root("ml")
    trained = _finetune(place, finetune_rate=5.0)
    assert "kept=head" in capsys.readouterr().out
    head = train_head(head_context(place, **SETTINGS), StopAfter())
    assert head
    assert weights_of(trained) == weights_of(head)


def test_it_goes_on_where_it_was_stopped_and_ends_alike(root: Callable[[str], Path]) -> None:
    whole, place = _finetune(root("whole")), root("stopped")
    trained, looks = None, 0
    while trained is None:
        assert looks < 60
        trained = _finetune(place, StopAfter(looks))
        looks += 4
    assert looks > 8
    assert weights_of(trained) == weights_of(whole)


def test_blocks_before_the_head_learn_at_less_of_its_rate() -> None:
    network = build_network(Architecture("resnet18", "small", 7))
    optimizer = engine.optimizer_for(network, weight_decay=0.1, layer_decay=0.5)
    shares = {id(p): group["share"] for group in optimizer.param_groups for p in group["params"]}
    named = {name: shares[id(parameter)] for name, parameter in network.named_parameters()}
    assert named["fc.weight"] == named["fc.bias"] == 1.0
    assert named["layer4.1.conv2.weight"] == named["layer4.1.bn1.bias"] == 0.5
    assert named["layer4.0.conv1.weight"] == 0.25
    assert named["conv1.weight"] == min(named.values())
    assert {group["share"] for group in engine.optimizer_for(network, weight_decay=0.1).param_groups} == {1.0}


def test_it_needs_weights() -> None:
    with pytest.raises(TrainingError, match="mode=finetune needs pretrained weights"):
        resolve_mode(Hyperparameters(mode="finetune"), has_weights=False)
    assert resolve_mode(Hyperparameters(mode="finetune"), has_weights=True) == "finetune"
