"""Whatever ends a run of head mode, the next one reuses its features and trials and ends with the same weights."""

import random
import signal
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.train.interrupted_runs import Chain, Place, after, in_an_export, prepare  # noqa: E402
from training.passport import file_sha256  # noqa: E402
from training.train.model import Architecture, build_network  # noqa: E402

SETTINGS = {
    "model": "mobilenet_v3_small",
    "mode": "head",
    "image_size": "32",
    "precision": "float32",
    "epochs": "2",
    "batch_size": "8",
    "views": "1",
    "trials": "2",
    "runtime": "onnxruntime",
    "int8": "yes",
    "int8_loss": "1",
}


@pytest.fixture(scope="module")
def prepared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    channels = prepare(tmp_path_factory.mktemp("prepared"))
    torch.manual_seed(0)
    torch.save(
        build_network(Architecture("mobilenet_v3_small", "small", 4)).state_dict(), channels / "weights" / "w.pth"
    )
    (channels / "weights" / "weights.json").write_text('{"file": "w.pth"}', "utf-8")
    return channels


def in_features(chain: Chain) -> bool:
    """Some features are on the disk or on their way there."""
    return chain.written("features/*/*")


def in_trials(chain: Chain) -> bool:
    return chain.said("\ntrial=1 ")


def _exports(chain: Chain) -> dict[str, str]:
    """The hashes of what is served; model.json says how long the run took."""
    return {file.name: file_sha256(file) for file in chain.job.paths.model.glob("model*") if file.suffix != ".json"}


@pytest.mark.long
def test_interruptions_anywhere_in_head_mode_change_no_bit(tmp_path: Path, prepared_data: Path) -> None:
    whole = Chain(tmp_path / "whole", prepared_data, SETTINGS)
    learned, dice = whole.finish(), random.Random(8)
    exports = _exports(whole)
    assert sorted(exports) == ["model-int8.bin", "model-int8.xml", "model.bin", "model.onnx", "model.xml"]
    places: list[Place] = [in_features, in_features, in_trials, in_an_export]
    places += [after(dice.uniform(0, 6)) for _ in range(4)]
    dice.shuffle(places)
    for start in (0, 4):
        chain = Chain(tmp_path / str(start), prepared_data, SETTINGS)
        for place, number in zip(places[start:], (signal.SIGKILL, signal.SIGTERM) * 2, strict=False):
            assert chain.run_until(place, number) in (0, 143, -number), chain.log.read_text("utf-8")
        assert chain.finish() == learned
        assert _exports(chain) == exports
        log = chain.log.read_text("utf-8")
        assert "Traceback" not in log
        assert "damaged" not in log
