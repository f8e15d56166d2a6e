"""The launcher and its workers as real processes: results, signals, resumption, several hosts, failures."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.hosts_of_a_job import SETTINGS, Job, meeting_place, until, wait_for, workers_of
from training.paths import Paths


@pytest.fixture
def data(two_classes: None, prepared: Callable[..., dict[str, Any]], opt_ml: Paths) -> Path:
    prepared()
    return opt_ml.processing_output("data").parent


@pytest.fixture
def job(tmp_path: Path, data: Path) -> Callable[..., Job]:
    names: Iterator[int] = iter(range(100))
    return lambda settings=SETTINGS, **config: Job(tmp_path / f"job{next(names)}", data, settings, **config)


@pytest.mark.long
@pytest.mark.torch
def test_a_run_that_is_stopped_and_resumed_equals_an_uninterrupted_one_bit_for_bit(job: Callable[..., Job]) -> None:
    whole, stopped = job(), job()
    code, output = whole.finish()
    assert code == 0, output
    with stopped.start() as process:
        until(process, "epoch=2")
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=120)[0]
    assert process.returncode == 143
    assert "stopped by SIGTERM" in rest
    assert "Traceback" not in rest
    assert not (stopped.paths.model / "model.json").exists()
    assert not (stopped.paths.output / "failure").exists()
    code, output = stopped.finish()
    assert code == 0, output
    assert "resuming at epoch=" in output
    assert "epoch=1 " not in output
    assert stopped.weights() == whole.weights()
    record = json.loads((stopped.paths.model / "model.json").read_text("utf-8"))
    assert record["metrics"] == json.loads((whole.paths.model / "model.json").read_text("utf-8"))["metrics"]
    assert (record["architecture"], record["stem"], record["classes"]) == (
        "mobilenet_v3_small",
        "small",
        ["cat", "dog"],
    )
    names = {file.name for file in whole.paths.model.iterdir()}
    assert names == {"model.json", "passport.json", "model.xml", "model.bin", "weights.pt"}


@pytest.mark.long
@pytest.mark.torch
def test_two_hosts_learn_what_one_learns(job: Callable[..., Job], data: Path) -> None:
    import torch

    from training.train.model import Architecture, build_network

    torch.manual_seed(0)
    torch.save(build_network(Architecture("mobilenet_v3_small", "small", 4)).state_dict(), data / "weights" / "w.pth")
    (data / "weights" / "weights.json").write_text('{"file": "w.pth"}', "utf-8")
    # A frozen backbone keeps its statistics, so that the sum over hosts is the same sum as on one.
    settings = {**SETTINGS, "epochs": "2"}
    hosts = ["algo-1", "algo-2"]
    alone = job(settings)
    pair = [job(settings, resourceconfig={"current_host": host, "hosts": hosts[::-1]}) for host in hosts]
    meeting = meeting_place()
    processes = [one.start(**meeting) for one in pair]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    code, output = alone.finish()
    assert code == 0, output
    assert "mode=head" in output
    ours, theirs = (torch.load(one.paths.model / "weights.pt", weights_only=True) for one in (alone, pair[0]))
    torch.testing.assert_close(theirs["classifier.3.weight"], ours["classifier.3.weight"], rtol=1e-3, atol=1e-5)
    assert torch.equal(theirs["features.0.0.weight"], ours["features.0.0.weight"])
    assert "valid_accuracy" not in outputs[1]  # worker 0 speaks for all
    assert not (pair[1].paths.model / "model.json").exists()


@pytest.mark.torch
def test_when_one_host_stops_both_stop(job: Callable[..., Job]) -> None:
    hosts = ["algo-1", "algo-2"]
    settings = {**SETTINGS, "epochs": "500"}
    pair = [job(settings, resourceconfig={"current_host": host, "hosts": hosts}) for host in hosts]
    meeting = meeting_place()
    first, second = (one.start(**meeting) for one in pair)
    with first, second:
        until(first, "epoch=1")
        second.send_signal(signal.SIGTERM)
        first.communicate(timeout=120)
        second.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (143, 143)
    assert list(pair[0].paths.checkpoints.glob("*/*.ckpt"))


@pytest.mark.torch
def test_an_image_that_was_damaged_on_the_way_is_the_failure_reason(job: Callable[..., Job]) -> None:
    broken = job()
    poisoned = broken.paths.channel("train") / "index.json"
    index = json.loads(poisoned.read_text("utf-8"))
    index["samples"][0]["size"] -= 40
    poisoned.write_text(json.dumps(index), "utf-8")
    code, _ = broken.finish()
    assert code == 1
    assert "Rank 0 on localhost: " in broken.failure
    assert "cannot be decoded" in broken.failure
    assert broken.failure.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("epochs", "many", "epochs must be a whole number, not 'many'"), ("speed", "1", "Unknown hyperparameter 'speed'")],
)
def test_a_bad_hyperparameter_is_the_failure_reason(name: str, value: str, told: str, job: Callable[..., Job]) -> None:
    bad = job({name: value})
    code, output = bad.finish()
    assert code == 1
    assert told in bad.failure
    assert output == bad.failure


def test_a_host_that_is_none_of_the_hosts_is_the_failure_reason(job: Callable[..., Job]) -> None:
    bad = job(resourceconfig={"current_host": "algo-3", "hosts": ["algo-1"]})
    assert bad.finish()[0] == 1
    assert "'algo-3', which is none of ['algo-1']" in bad.failure


@pytest.mark.torch
def test_a_missing_channel_is_the_failure_reason(job: Callable[..., Job]) -> None:
    bad = job()
    shutil.rmtree(bad.paths.channel("valid"))
    code, output = bad.finish()
    assert code == 1
    assert "valid/index.json is missing" in bad.failure
    assert "Traceback" not in output


def test_a_worker_that_is_killed_is_said_to_lack_memory(job: Callable[..., Job]) -> None:
    killed = job()
    with killed.start() as process:
        worker = wait_for(lambda: workers_of(process.pid))[0]
        os.kill(worker, signal.SIGKILL)
        process.communicate(timeout=120)
    assert process.returncode == 1
    assert "lack of memory" in killed.failure


def test_a_launcher_that_is_killed_takes_its_worker_along(job: Callable[..., Job]) -> None:
    with job({**SETTINGS, "epochs": "10000"}).start() as process:
        wait_for(lambda: workers_of(process.pid))[0]
        process.kill()
        process.communicate(timeout=120)  # returns when the worker, which holds the pipe too, has ended
