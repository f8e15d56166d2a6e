"""The setting compile."""

import importlib
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.splits_by_hand import small_job  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.train.job import Job  # noqa: E402
from training.train.whole.learner import Learner  # noqa: E402


def _job(root: Path, how: str) -> Job:
    return small_job(root, model="resnet18", compile=how)


def test_without_a_compiler_the_setting_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(TrainingError, match=r"compile=yes needs a C\+\+ compiler, but no-such-compiler is not here"):
        Learner(_job(tmp_path / "ml", "yes"))
    Learner(_job(tmp_path / "ml", "no"))


@pytest.mark.long
def test_a_compiler_that_fails_ends_the_run_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    learner = Learner(_job(tmp_path / "ml", "yes"))
    broken: Any = importlib.import_module("torch._inductor.config").patch({"cpp.cxx": (None, "false")})
    with broken, pytest.raises(TrainingError, match="The network could not be compiled") as caught:
        learner.step(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 0, 1]), rate=0.01, share=1.0)
    assert str(caught.value).endswith("; set compile=no.")
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_a_compiled_network_learns_what_the_plain_one_learns_under_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    states, losses = [], []
    for how in ("no", "yes"):
        learner = Learner(_job(tmp_path / "ml", how))
        learner.network.train()
        images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        losses.append([learner.step(images, torch.tensor([0, 1, 0, 1]), rate=1e-3, share=1.0) for _ in range(3)])
        states.append(learner.kept.state_dict())
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert states[0].keys() == states[1].keys()
    assert losses[0][0] != losses[0][2]
