"""Two ranks learn what one learns: what each sees, what each computes, what comes of it, over real sockets.

That shares are disjoint and complete for any number of images and ranks is tested with the plans that make them.
"""

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.hosts_of_a_job import Job, meeting_place, plant, until, workers_of  # noqa: E402
from training.paths import Paths  # noqa: E402

HOSTS = ["algo-1", "algo-2"]
IMAGES, VALID, EPOCHS, BATCH = 16, 2, 2, 8
SETTINGS = {"model": "resnet18", "mode": "whole", "image_size": "32", "precision": "float32", "learning_rate": "0.001"}
SETTINGS |= {"epochs": str(EPOCHS), "batch_size": str(BATCH), "int8": "no"}  # whose calibration reads images anew

# Batch normalization takes its statistics from a rank's own part of the batch, so with it two ranks of four images
# compute something else than one rank of eight, and rightly so. What is compared here is a network without it.
WITHOUT_BATCH_NORM = """
if program == "training.train.worker":
    import torch, torchvision
    from training import data, model
    def build(architecture):
        norm = lambda channels: torch.nn.GroupNorm(8, channels)
        return torchvision.models.resnet18(num_classes=architecture.classes, norm_layer=norm)
    model.build = build
"""
# Writes which image is read, and before each step the gradients and weights.
TELL = """
if program == "training.train.worker":
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook
    from training import data
    folder, steps, read = os.environ["OPT_ML"], [], data.Images.__getitem__
    def reading(images, item):
        with open(f"{folder}/read", "a") as log:
            log.write(f"{images._split.split} {item[0]}\\n")
        return read(images, item)
    data.Images.__getitem__ = reading
    def before(optimizer, *_):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.save([[p.grad, p.detach()] for p in parameters], f"{folder}/step-{len(steps)}.pt")
        steps.append(1)
    register_optimizer_step_pre_hook(before)
"""


@pytest.fixture
def data(two_classes: None, prepared: Callable[..., dict[str, Any]], opt_ml: Paths) -> Path:
    prepared()
    return opt_ml.processing_output("data").parent


def _pair(folder: Path, data: Path, settings: dict[str, str]) -> list[Job]:
    return [Job(folder / host, data, settings, resourceconfig={"current_host": host, "hosts": HOSTS}) for host in HOSTS]


@pytest.mark.long
def test_two_ranks_of_half_a_batch_follow_one_rank(data: Path, tmp_path: Path) -> None:
    """float32, gradients within 0.1 % of the longest; weights: within 1 % of the way that training took them."""
    alone, pair = Job(tmp_path / "alone", data, SETTINGS), _pair(tmp_path, data, SETTINGS)
    planted, meeting = plant(tmp_path / "plant", WITHOUT_BATCH_NORM + TELL), meeting_place()
    started = [job.start(**planted, **meeting) for job in (alone, *pair)]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], outputs
    single, first, second = (job.paths.root for job in (alone, *pair))
    _read_once(first, second)
    steps = EPOCHS * IMAGES // BATCH
    for step in range(steps):
        ours, mine, theirs = (torch.load(root / f"step-{step}.pt") for root in (single, first, second))
        for (_, _), (gradient, weight), (other, same) in zip(ours, mine, theirs, strict=True):
            assert torch.equal(gradient, other)
            assert torch.equal(weight, same)
    ours, mine = (torch.load(root / "step-0.pt") for root in (single, first))
    whole, halves = (torch.cat([gradient.flatten() for gradient, _ in one]) for one in (ours, mine))
    assert (whole - halves).abs().max() < 1e-3 * whole.abs().max()
    assert whole.abs().max() > 0
    last, other = (torch.load(root / f"step-{steps - 1}.pt") for root in (single, first))
    begin, end, compared = (torch.cat([weight.flatten() for _, weight in one]) for one in (ours, last, other))
    assert (end - compared).norm() < 0.01 * (end - begin).norm()
    losses = [
        [epoch["train_loss"] for epoch in json.loads((root / "model" / "model.json").read_text("utf-8"))["history"]]
        for root in (single, first)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def _read_once(first: Path, second: Path) -> None:
    """In each epoch all images, each by one rank; worker 0 looks at a few of the validation's again for the export."""
    logs = [(root / "read").read_text("utf-8").splitlines() for root in (first, second)]
    train = [[line for line in log if line.startswith("train")] for log in logs]
    part = IMAGES // 2
    assert [len(log) for log in train] == [EPOCHS * part] * 2
    for epoch in range(EPOCHS):
        seen = Counter(line for log in train for line in log[epoch * part : (epoch + 1) * part])
        assert seen == Counter({f"train {index}": 1 for index in range(IMAGES)})
    valid = [[line for line in log if line.startswith("valid")][: EPOCHS * VALID // 2] for log in logs]
    assert valid == [["valid 0"] * EPOCHS, ["valid 1"] * EPOCHS]


def test_a_rank_that_dies_while_it_learns_is_the_reason_on_both_hosts(data: Path, tmp_path: Path) -> None:
    pair, meeting = _pair(tmp_path, data, {**SETTINGS, "epochs": "5000"}), meeting_place()
    first, second = (job.start(**meeting) for job in pair)
    with first, second:
        until(first, "epoch=1 ")
        os.kill(workers_of(second.pid)[0], signal.SIGKILL)
        first.communicate(timeout=30)
        second.communicate(timeout=30)
    assert (first.returncode, second.returncode) == (1, 1)
    for job in pair:
        assert job.failure.startswith("Rank 1 on algo-2 was killed, most often for lack of memory")


@pytest.mark.long
def test_torchrun_starts_the_workers_too(data: Path, tmp_path: Path) -> None:
    job = Job(tmp_path / "job", data, SETTINGS)
    port = meeting_place()["MASTER_PORT"]
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port)
    with job.start(*torchrun, "-m", "training.train.worker", "--epochs", "1") as process:
        output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert "workers=2" in output
    assert output.count("epoch=1 ") == 1
    assert "epoch=2 " not in output
    assert (job.paths.model / "model.json").is_file()


@pytest.mark.long
def test_torchrun_shows_why_a_worker_failed(data: Path, tmp_path: Path) -> None:
    job = Job(tmp_path / "job", data, SETTINGS)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", "--standalone")
    with job.start(*torchrun, "-m", "training.train.worker", "--epochs", "none") as process:
        output = process.communicate(timeout=300)[0]
    assert process.returncode == 1
    assert "Hyperparameter epochs must be a whole number, not 'none'." in output
