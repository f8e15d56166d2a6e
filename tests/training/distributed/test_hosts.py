"""A job of several hosts or workers ends on all hosts, with a reason, whatever happens to one of them.

Launchers, torchrun and workers are real processes on this machine; in place of learning the workers exchange whether
one is to stop, as the epoch loops do after each step.
"""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.hosts_of_a_job import Cluster, children_of, stand_in, until  # noqa: E402
from training.distributed.process_group import ProcessGroup  # noqa: E402
from training.errors import TrainingError  # noqa: E402

EXCHANGE = """
    import torch
    from training.distributed.process_group import ProcessGroup
    with ProcessGroup.initialize(torch.device("cpu")) as group:
        begun()
        while not group.all_reduce(stop.is_set)[0]:
            time.sleep(0.01)
        group.barrier()
    return False
"""
# In place of its usual seconds: it is not the platform that stops the other host.
IMPATIENT = """
if program == "training":
    from training.distributed import launcher
    launcher.LOST_PEER_SECONDS = 0.1
"""
# Every process believes that this machine has two NUMA nodes.
TWO_NODES = """
from pathlib import Path
from training.distributed import cluster
cluster.NODES = Path(__file__).parent
for number, cpu in enumerate(sorted(os.sched_getaffinity(0))[:2]):
    (cluster.NODES / f"node{number}").mkdir(exist_ok=True)
    if program == "training":
        (cluster.NODES / f"node{number}" / "cpulist").write_text(str(cpu))
os.environ.pop("OMP_NUM_THREADS", None) if program == "training" else None
"""
LOST = "the exchange with the other workers broke ("


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Cluster]:
    two = Cluster(tmp_path, ["algo-1", "algo-2"])
    yield two
    two.close()


def test_a_rank_that_is_killed_is_the_reason_of_its_host_and_ends_the_other(pair: Cluster) -> None:
    pair.start(IMPATIENT + stand_in(EXCHANGE))
    os.kill(pair.begun()[1], signal.SIGKILL)
    assert pair.failure("algo-2").startswith("Rank 1 on algo-2 was killed, most often for lack of memory")
    assert pair.failure("algo-1").startswith(f"Rank 0 on algo-1: {LOST}")


@pytest.mark.long
def test_a_host_that_lost_another_waits_to_be_stopped_by_the_platform(pair: Cluster) -> None:
    """So that the other host, which knows the cause, is the first to fail; here none comes: its launcher is killed."""
    pair.start(IMPATIENT.replace("0.1", "600") + stand_in(EXCHANGE))
    left = [*pair.begun(), *children_of(pair.processes["algo-2"].pid, "training.distributed.agent")]
    pair.processes["algo-2"].kill()
    pair.end("algo-2")  # returns when all that hold the pipe, torchrun and the worker, have ended
    assert len(left) == 3
    until(pair.processes["algo-1"], "A rank of another host is gone; waiting 600 s")
    pair.processes["algo-1"].send_signal(signal.SIGTERM)
    assert pair.end("algo-1")[0] == 143


@pytest.mark.long
def test_when_one_host_is_asked_to_stop_all_stop(pair: Cluster) -> None:
    pair.start(stand_in(EXCHANGE))
    pair.begun()
    pair.processes["algo-2"].send_signal(signal.SIGTERM)
    assert [pair.end(name)[0] for name in ("algo-2", "algo-1")] == [143, 143]
    assert not any((job.paths.output / "failure").exists() for job in pair.jobs.values())


def test_a_host_that_is_stopped_before_the_others_have_come_ends_with_143(pair: Cluster) -> None:
    pair.start("if program == 'training.distributed.agent':\n    print('torchrun', flush=True)\n", "algo-1")
    until(pair.processes["algo-1"], "torchrun")
    pair.processes["algo-1"].send_signal(signal.SIGTERM)
    assert pair.end("algo-1")[0] == 143


@pytest.mark.long
def test_hosts_that_do_not_come_are_the_reason(tmp_path: Path) -> None:
    places = [Cluster(tmp_path / name, ["algo-1", "algo-2"]) for name in ("algo-1", "algo-2")]
    for name, place in zip(("algo-1", "algo-2"), places, strict=True):
        place.start("", name, PROCESS_GROUP_TIMEOUT_SECONDS="1")
    for name, place in zip(("algo-1", "algo-2"), places, strict=True):
        assert place.failure(name).startswith("The 2 hosts of the job did not meet at 127.0.0.1:")


def test_a_port_that_is_taken_is_the_reason(pair: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        pair.start("", "algo-1", MASTER_PORT=port)
        reason = pair.failure("algo-1")
    assert reason.startswith(f"The 2 hosts of the job did not meet at 127.0.0.1:{port}: ")
    assert "ddress already in use" in reason


def test_hosts_on_one_machine_listen_where_no_network_reaches(pair: Cluster) -> None:
    """torch authenticates nobody, and its workers exchange pickled objects."""
    pair.start(stand_in(EXCHANGE))
    pair.begun()
    started = [psutil.Process(process.pid) for process in pair.processes.values()]
    whole = [one for process in started for one in (process, *process.children(recursive=True))]
    listening = [found for one in whole for found in one.net_connections() if found.status == psutil.CONN_LISTEN]
    assert len(listening) >= 3  # the store, and each worker
    assert {found.laddr.ip for found in listening} == {"127.0.0.1"}


def test_hosts_with_different_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORLD_SIZE", "3"), ("LOCAL_WORLD_SIZE", "2"), ("GROUP_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    expected = "This host has 2 workers, but the 2 hosts have 3 together: all hosts must be of one instance type."
    with pytest.raises(TrainingError, match=expected), ProcessGroup.initialize(torch.device("cpu")):
        pass


@pytest.mark.long
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="takes two CPUs")
def test_each_worker_of_a_host_has_the_cpus_of_its_node(tmp_path: Path) -> None:
    """And when one fails, torchrun ends the other."""
    host = Cluster(tmp_path, ["algo-1"])
    names = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "OMP_NUM_THREADS"]
    names.append("GLOO_SOCKET_IFNAME")
    work = f"""
        if rank == 1:
            raise ValueError(sorted(os.sched_getaffinity(0)), [os.environ[name] for name in {names}])
        while not stop.is_set:
            time.sleep(0.01)
        """
    host.start(TWO_NODES + stand_in(work))
    second = sorted(os.sched_getaffinity(0))[1]
    told = ([second], ["1", "2", "1", "2", "0", "127.0.0.1", "1", "lo"])
    assert host.failure("algo-1") == f"Rank 1 on algo-1: ValueError: {told}\n"
