"""Head mode as real processes: killed and started again, and on several workers."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.long]
torch = pytest.importorskip("torch")

from tests.training.train import jobs  # noqa: E402
from training.train.model import Architecture, build_network  # noqa: E402

ROOT = Path(__file__).resolve().parents[4]
SETTINGS = {**jobs.HEAD, "views": 1, "trials": 3, "epochs": 2}
PATIENCE = 300


class Run:
    """One worker of a job in a folder of its own."""

    def __init__(self, root: Path, channels: Path, settings: Mapping[str, Any] = SETTINGS) -> None:
        self.root = root
        shutil.copytree(channels, root / "input" / "data")
        (root / "input" / "config").mkdir()
        strings = json.dumps({name: str(value) for name, value in settings.items()})
        (root / "input" / "config" / "hyperparameters.json").write_text(strings, "utf-8")

    def start(self, **variables: str) -> "subprocess.Popen[str]":
        environment = {**os.environ, "OPT_ML": str(self.root), "OMP_NUM_THREADS": "1", "CHECKPOINT_SECONDS": "0"}
        command = [sys.executable, "-m", "training.distributed.worker"]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, **variables: str) -> str:
        with self.start(**variables) as process:
            output = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0, output
        return output

    def weights(self) -> str:
        state = torch.load(self.root / "model" / "weights.pt", weights_only=True)
        return hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    jobs.write_channels(root, 20, 9)
    jobs.write_head_job(root, build_network(Architecture("resnet18", "small", 7)))
    return root / "input" / "data"


@pytest.fixture(scope="module")
def whole(channels: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nobody disturbs."""
    run = Run(tmp_path_factory.mktemp("runs") / "whole", channels)
    run.finish()
    return run


def _ranks(count: int) -> list[dict[str, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "GLOO_SOCKET_IFNAME": "lo"}
    return [{**meeting, "RANK": str(rank), "LOCAL_RANK": "0"} for rank in range(count)]  # each on a host of its own


def test_a_run_that_is_killed_at_its_first_chunk_ends_as_an_undisturbed_one(
    whole: Run, channels: Path, tmp_path: Path
) -> None:
    killed = Run(tmp_path / "killed", channels)
    with killed.start() as process:
        until = time.monotonic() + PATIENCE
        while not jobs.chunks(killed.root):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.005)
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (killed.root / "model" / "model.json").exists()
    output = killed.finish()
    assert "reused=0 " not in output.split("features split=train")[1].splitlines()[0]
    assert killed.weights() == whole.weights()


def test_two_workers_make_what_one_makes_bit_for_bit(whole: Run, channels: Path, tmp_path: Path) -> None:
    pair = [Run(tmp_path / f"host-{rank}", channels) for rank in range(2)]
    processes = [run.start(**variables) for run, variables in zip(pair, _ranks(2), strict=True)]
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "split=train views=1 images=40 computed=40 reused=0" in outputs[0]
    assert "features" not in outputs[1]  # worker 0 speaks for all
    assert pair[0].weights() == whole.weights()
    assert not (pair[1].root / "model" / "model.json").exists()
    sizes = [sum(file.stat().st_size // (512 * 4) for file in jobs.chunks(run.root)) for run in pair]
    assert sizes == [10 + 10 + 5, 10 + 10 + 4]  # each computed its share


def test_a_signal_to_one_worker_stops_all_while_the_head_learns(channels: Path, tmp_path: Path) -> None:
    pair = [Run(tmp_path / f"host-{rank}", channels, {**SETTINGS, "trials": 10_000}) for rank in range(2)]
    first, second = (run.start(**variables) for run, variables in zip(pair, _ranks(2), strict=True))
    with first, second:
        assert first.stdout
        for line in first.stdout:
            if line.startswith("trial=3 "):
                break
        second.send_signal(signal.SIGTERM)
        rest = first.communicate(timeout=PATIENCE)[0]
        second.communicate(timeout=PATIENCE)
    assert (first.returncode, second.returncode) == (143, 143)
    assert "stopped by SIGTERM" in rest
    assert list((pair[0].root / "checkpoints").glob("*/trials.txt"))
