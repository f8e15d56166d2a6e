"""Two ranks of whole-network training as real processes: what they answer is what is exported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.hosts_of_a_job import ROOT, meeting_place  # noqa: E402
from tests.training.splits_by_hand import write_channels  # noqa: E402

RANK = """
import sys, types, torch
from pathlib import Path
from training.train import engine
from training.train.data import Images
from training.hyperparameters import Hyperparameters
from training.train.job import Job
from training.paths import Paths
from training.distributed.process_group import ProcessGroup
from training.train.whole.run import train_whole

torch.set_num_threads(1)
settings = Hyperparameters(
    model="mobilenet_v3_small", image_size=16, epochs=1, batch_size=4, precision="float32", ema=0.5
)
with ProcessGroup.initialize(torch.device("cpu")) as group:
    for root in sys.argv[1:]:
        job = Job(Paths(Path(root)), settings, group, group.device)
        trained = train_whole(job, types.SimpleNamespace(is_set=False))
        images = Images(job.valid_split, job.how, augment=False)
        alone = engine.answer(trained.model, [images[n, 0][0][None] for n in range(len(images))], torch.float32)
        torch.save({"together": trained.logits, "alone": alone}, f"{root}/answers-{group.rank}.pt")
"""


def test_all_ranks_answer_with_the_statistics_that_are_exported(tmp_path: Path) -> None:
    """Each rank's batch normalization sees other images; with one validation image the second rank has none."""
    roots = {count: tmp_path / str(count) for count in (1, 5)}
    for count, root in roots.items():
        write_channels(root, valid=count)
    shared = {**os.environ, **meeting_place(), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RANK, *map(str, roots.values())]
    ranks = [subprocess.Popen(command, cwd=ROOT, env={**shared, "RANK": str(rank)}) for rank in (0, 1)]
    assert [process.wait(120) for process in ranks] == [0, 0]
    for count, root in roots.items():
        first, second = (torch.load(root / f"answers-{rank}.pt", weights_only=True) for rank in (0, 1))
        assert first["together"].shape == (count, 2)
        assert torch.equal(first["together"], second["together"])
        torch.testing.assert_close(first["together"], first["alone"], rtol=1e-4, atol=1e-6)
        assert torch.equal(first["alone"], second["alone"])
