"""Two ranks learn what one learns: what each sees, what each computes, what comes of it, over real sockets.

That shares are disjoint and complete for any number of images and ranks is tested with the plans that make them.
"""

import json
import signal
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training import hosts_of_a_job  # noqa: E402
from tests.training.hosts_of_a_job import Job, meeting_place, plant, until  # noqa: E402
from tests.training.train.jobs import StopAfter, write_channels  # noqa: E402
from training.distributed.process_group import ProcessGroup  # noqa: E402
from training.hyperparameters import Hyperparameters  # noqa: E402
from training.paths import Paths  # noqa: E402
from training.train.run import run  # noqa: E402

HOSTS = ["algo-1", "algo-2"]
IMAGES, VALID, EPOCHS, BATCH = 16, 2, 2, 8
SETTINGS = {"model": "resnet18", "mode": "whole", "image_size": "32", "precision": "float32", "learning_rate": "0.001"}
SETTINGS |= {"epochs": str(EPOCHS), "batch_size": str(BATCH), "int8": "no"}  # whose calibration reads images anew

# Batch normalization takes its statistics from a rank's own part of the batch, so with it two ranks of four images
# compute something else than one rank of eight, and rightly so. What is compared here is a network without it.
WITHOUT_BATCH_NORM = """
if program == "training.distributed.worker":
    import torch, torchvision
    from training.train import context
    def build(architecture):
        norm = lambda channels: torch.nn.GroupNorm(8, channels)
        return torchvision.models.resnet18(num_classes=architecture.classes, norm_layer=norm)
    context.build_network = build
"""
# Writes which image is read, and before each step the gradients and weights.
TELL = """
if program == "training.distributed.worker":
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook
    from training.train import data
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
def data(tmp_path: Path) -> Path:
    """Where Prepare leaves the channels."""
    write_channels(tmp_path / "made", train=IMAGES, valid=VALID)
    prepared = tmp_path / "made" / "input"
    (prepared / "data" / "weights").rename(prepared / "weights")
    return prepared


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
    """In each epoch all images, each by one rank; afterwards worker 0 looks at all for the reference and the export."""
    logs = [(root / "read").read_text("utf-8").splitlines() for root in (first, second)]
    train = [[line for line in log if line.startswith("train")] for log in logs]
    part = IMAGES // 2
    again = train[0][EPOCHS * part :]
    assert len(again) == len(set(again)) == IMAGES
    assert len(train[1]) == EPOCHS * part
    for epoch in range(EPOCHS):
        seen = Counter(line for log in train for line in log[epoch * part : (epoch + 1) * part])
        assert seen == Counter({f"train {index}": 1 for index in range(IMAGES)})
    valid = [[line for line in log if line.startswith("valid")][: EPOCHS * VALID // 2] for log in logs]
    assert valid == [["valid 0"] * EPOCHS, ["valid 1"] * EPOCHS]


@pytest.mark.long
def test_two_hosts_learn_what_one_learns(data: Path, tmp_path: Path) -> None:
    from training.train.model import Architecture, build_network

    torch.manual_seed(0)
    torch.save(build_network(Architecture("mobilenet_v3_small", "small", 4)).state_dict(), data / "weights" / "w.pth")
    (data / "weights" / "weights.json").write_text('{"file": "w.pth"}', "utf-8")
    # A frozen backbone keeps its statistics, so that the sum over hosts is the same sum as on one.
    settings = {**hosts_of_a_job.SETTINGS, "epochs": "2"}
    alone, pair = Job(tmp_path / "alone", data, settings), _pair(tmp_path, data, settings)
    meeting = meeting_place()
    processes = [job.start(**meeting) for job in (alone, *pair)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert "mode=head" in outputs[0]
    ours, theirs = (torch.load(job.paths.model / "weights.pt", weights_only=True) for job in (alone, pair[0]))
    torch.testing.assert_close(theirs["classifier.3.weight"], ours["classifier.3.weight"], rtol=1e-3, atol=1e-5)
    assert torch.equal(theirs["features.0.0.weight"], ours["features.0.0.weight"])
    assert "valid_accuracy" not in outputs[2]  # rank 0 speaks for all
    assert not (pair[1].paths.model / "model.json").exists()


@pytest.mark.long
def test_when_one_host_stops_both_stop_after_a_checkpoint(data: Path, tmp_path: Path) -> None:
    pair, meeting = _pair(tmp_path, data, {**SETTINGS, "epochs": "5000"}), meeting_place()
    first, second = (job.start(**meeting) for job in pair)
    with first, second:
        until(first, "epoch=1 ")
        second.send_signal(signal.SIGTERM)
        first.communicate(timeout=300)
        second.communicate(timeout=300)
    assert (first.returncode, second.returncode) == (143, 143)
    assert list(pair[0].paths.checkpoints.glob("*/*.ckpt"))


def test_ranks_that_stop_end_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun gives the others 30 s once one has ended, and rank 0 may still write its checkpoint."""
    write_channels(tmp_path)
    came: list[int] = []
    monkeypatch.setattr(ProcessGroup, "barrier", lambda group: came.append(group.rank))
    monkeypatch.setattr("training.train.run.train_whole", lambda context, stop: None)
    assert not run(Paths(tmp_path), Hyperparameters(model="resnet18", mode="whole"), StopAfter())
    assert came == [0]
