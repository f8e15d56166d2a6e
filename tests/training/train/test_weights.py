"""Pretrained weights: in whatever they are wrapped, they are taken up or refused in one sentence."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from training.errors import TrainingError  # noqa: E402
from training.hyperparameters import Hyperparameters  # noqa: E402
from training.train.context import resolve_mode  # noqa: E402
from training.train.model import Architecture, build_network, choose_architecture, load_weights, read_weights  # noqa: E402  # noqa: E402

SOURCE = build_network(Architecture("resnet18", "standard", 3)).state_dict()


@pytest.fixture
def channel(tmp_path: Path) -> Callable[[str], Path]:
    """The weights channel with a file of that name still to be written; returns the file."""

    def name(file: str) -> Path:
        (tmp_path / "weights.json").write_text(json.dumps({"file": file, "sha256": "0"}), "utf-8")
        return tmp_path / file

    return name


def _prefixed(prefix: str) -> dict[str, Any]:
    return {prefix + key: value for key, value in SOURCE.items()}


WRAPPED: dict[str, Callable[[], Any]] = {
    "plain": lambda: SOURCE,
    "in state_dict": lambda: {"state_dict": SOURCE, "epoch": 3},
    "in model": lambda: {"model": SOURCE, "args": argparse.Namespace(lr=0.1), "epoch": 3},
    "of DataParallel": lambda: _prefixed("module."),
    "of a compiled DataParallel": lambda: {"state_dict": _prefixed("_orig_mod.module.")},
    "of a DataParallel that is compiled inside": lambda: _prefixed("module._orig_mod."),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_state_dict_is_found_in_what_it_is_wrapped_in(kind: str, channel: Callable[[str], Path]) -> None:
    file = channel("w.pth")
    torch.save(WRAPPED[kind](), file)
    found = read_weights(file.parent)
    assert found
    assert found[0] == "w.pth"
    assert found[1].keys() == SOURCE.keys()
    assert torch.equal(found[1]["fc.weight"], SOURCE["fc.weight"])


def test_safetensors_are_read(channel: Callable[[str], Path]) -> None:
    file = channel("w.safetensors")
    save_file(dict(SOURCE), file)
    found = read_weights(file.parent)
    assert found
    assert torch.equal(found[1]["layer1.0.conv1.weight"], SOURCE["layer1.0.conv1.weight"])


def test_no_weights_are_none(tmp_path: Path) -> None:
    (tmp_path / "weights.json").write_text(json.dumps({"file": None}), "utf-8")
    assert read_weights(tmp_path) is None


BROKEN: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "a whole module": ("w.pth", lambda file: torch.save(torch.nn.Linear(2, 2), file), "as a whole pickled model does"),
    "a text": ("w.pth", lambda file: file.write_text("these are no weights"), "is cut short, or none of torch's"),
    "nothing": ("w.pth", lambda file: file.write_bytes(b""), "is cut short, or none of torch's"),
    "half a file": ("w.pth", lambda file: _cut(file, lambda: torch.save(SOURCE, file)), "is cut short"),
    "half of safetensors": (
        "w.safetensors",
        lambda file: _cut(file, lambda: save_file(dict(SOURCE), file)),
        "no whole",
    ),
    "empty safetensors": ("w.safetensors", lambda file: file.write_bytes(b""), "no whole safetensors file"),
    "numbers": ("w.pth", lambda file: torch.save({"lr": 0.1}, file), "hold no state_dict"),
    "no names": ("w.pth", lambda file: torch.save({}, file), "hold no state_dict"),
    "a tensor": ("w.pth", lambda file: torch.save(torch.zeros(3), file), "hold no state_dict"),
}


def _cut(file: Path, write: Callable[[], None]) -> None:
    write()
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("kind", BROKEN)
def test_what_holds_no_weights_is_refused_with_its_name_and_what_to_do(
    kind: str, channel: Callable[[str], Path]
) -> None:
    name, write, message = BROKEN[kind]
    file = channel(name)
    write(file)
    with pytest.raises(TrainingError, match=message) as caught:
        read_weights(file.parent)
    assert name in str(caught.value)


def test_what_a_pickle_brings_along_is_not_run(channel: Callable[[str], Path], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    file = channel("w.pth")
    torch.save({"w": Trap()}, file)
    with pytest.raises(TrainingError, match="holds more than names and tensors"):
        read_weights(file.parent)
    assert not (tmp_path / "sprung").exists()


def test_weights_of_other_classes_keep_the_backbone_and_a_new_head() -> None:
    source = build_network(Architecture("resnet18", "standard", 7)).state_dict()
    model: Any = build_network(Architecture("resnet18", "standard", 3))
    head = model.fc.weight.detach().clone()
    load_weights(model, Architecture("resnet18", "standard", 3), "w.pth", source)
    assert torch.equal(model.state_dict()["layer4.1.conv2.weight"], source["layer4.1.conv2.weight"])
    assert torch.equal(model.fc.weight, head)


def test_weights_of_the_same_classes_keep_their_head() -> None:
    source = build_network(Architecture("resnet18", "standard", 3)).state_dict()
    model: Any = build_network(Architecture("resnet18", "standard", 3))
    load_weights(model, Architecture("resnet18", "standard", 3), "w.pth", source)
    assert torch.equal(model.fc.weight, source["fc.weight"])


def test_weights_of_another_architecture_are_refused_with_the_one_they_fit() -> None:
    source = build_network(Architecture("resnet18", "standard", 7)).state_dict()
    architecture = Architecture("resnet50", "standard", 3)
    with pytest.raises(TrainingError, match=r"w\.pth do not fit resnet50 .*; they fit model=resnet18"):
        load_weights(build_network(architecture), architecture, "w.pth", source)


@pytest.mark.parametrize("image_size", [32, 224])
@pytest.mark.parametrize("stem", ["standard", "small"])
def test_weights_keep_the_stem_that_they_were_trained_with(stem: str, image_size: int) -> None:
    settings = Hyperparameters(model="resnet18", image_size=image_size)
    source = build_network(Architecture("resnet18", stem, 7)).state_dict()
    chosen = choose_architecture(settings, 3, source)
    assert chosen == Architecture("resnet18", stem, 3)
    load_weights(build_network(chosen), chosen, "w.pth", source)


def test_without_weights_the_stem_follows_the_image_size() -> None:
    for image_size, stem in ((32, "small"), (64, "small"), (65, "standard")):
        assert choose_architecture(Hyperparameters(model="resnet18", image_size=image_size), 3, None).stem == stem


def test_auto_trains_the_head_where_there_are_weights() -> None:
    assert resolve_mode(Hyperparameters(), has_weights=True) == "head"
    assert resolve_mode(Hyperparameters(), has_weights=False) == "whole"
    with pytest.raises(TrainingError, match="mode=head needs pretrained weights"):
        resolve_mode(Hyperparameters(mode="head"), has_weights=False)
