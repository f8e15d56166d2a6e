"""How the hosts of a job find each other, begin together and stop together, as real processes over loopback."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.hosts_of_a_job import Crowd, stand_in, wait_for, workers_of

# To plant: every process believes that this machine has two NUMA nodes.
TWO_NODES = """
from pathlib import Path
from training import cluster
cluster.NODES = Path(__file__).parent
for number, cpu in enumerate(sorted(os.sched_getaffinity(0))[:2]):
    (cluster.NODES / f"node{number}").mkdir(exist_ok=True)
    (cluster.NODES / f"node{number}" / "cpulist").write_text(str(cpu))
os.environ.pop("OMP_NUM_THREADS", None) if program == "training" else None
"""


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    two = Crowd(tmp_path, ["algo-1", "algo-2"])
    yield two
    two.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Crowd]:
    one = Crowd(tmp_path, ["algo-1"])
    yield one
    one.close()


def test_a_bad_setting_on_one_host_is_told_by_every_host(crowd: Crowd) -> None:
    crowd.start(stand_in(), "algo-1")
    (crowd.jobs["algo-1"].paths.config / "hyperparameters.json").write_text('{"epochs": "many"}', "utf-8")
    crowd.start(stand_in(), "algo-2")
    assert crowd.reason() == "Hyperparameter epochs must be a whole number, not 'many'.\n"


def test_a_host_gives_up_when_another_does_not_come(crowd: Crowd) -> None:
    crowd.start(stand_in(), "algo-1", PATIENCE_SECONDS="0.5")
    assert crowd.reason() == "These hosts did not come within 0.5 s: algo-2; see their logs.\n"


def test_a_host_gives_up_when_the_first_does_not_come(crowd: Crowd) -> None:
    crowd.start(stand_in(), "algo-2", PATIENCE_SECONDS="0.5")
    reason = crowd.reason()
    assert reason.startswith("The first host, algo-1, did not answer at 127.0.0.1:")
    assert reason.endswith("within 0.5 s.\n")


def test_a_port_that_is_taken_is_the_reason(crowd: Crowd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        crowd.start(stand_in(), "algo-1", MASTER_PORT=port)
        assert crowd.reason() == f"Port {port} of this host cannot be had: Address already in use; set MASTER_PORT.\n"


def test_hosts_with_different_devices_are_refused(crowd: Crowd) -> None:
    crowd.start(stand_in(), "algo-1")
    crowd.start(TWO_NODES + stand_in(), "algo-2")
    assert crowd.reason() == "algo-2 has 2 workers, but algo-1 has 1: all hosts must be of one instance type.\n"


def test_strangers_are_sent_away_while_hosts_are_awaited(crowd: Crowd) -> None:
    crowd.start(stand_in(), "algo-1")
    other = b'{"kind": "hello", "host": "algo-9", "workers": 1}\n'
    for call in (b"GET / HTTP/1.1\r\n\r\n", other, b"[]\n", b"\xff" * 70_000, b""):
        with wait_for(crowd.call) as stranger:
            stranger.sendall(call)
            stranger.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):  # it did not even read all
                assert stranger.recv(1) == b""
    silent = crowd.call()
    crowd.start(stand_in("raise ValueError('both began')"), "algo-2")
    assert crowd.reason() == "Rank 1 on algo-2: ValueError: both began\n"
    assert silent
    silent.close()


def test_when_one_host_is_asked_to_stop_all_stop(crowd: Crowd) -> None:
    crowd.start(stand_in())
    crowd.begun()
    crowd.processes["algo-2"].send_signal(signal.SIGTERM)
    assert crowd.codes() == [143, 143]
    assert not any((job.paths.output / "failure").exists() for job in crowd.jobs.values())


@pytest.mark.parametrize("name", ["algo-1", "algo-2"])
def test_a_host_that_waits_for_others_stops_when_asked(name: str, crowd: Crowd) -> None:
    crowd.start(stand_in(), name)
    wait_for(lambda: _catches_sigterm(crowd.processes[name].pid))
    crowd.processes[name].send_signal(signal.SIGTERM)
    assert crowd.codes() == [143]


def test_a_signal_that_comes_before_a_worker_can_answer_waits_for_it(crowd: Crowd) -> None:
    crowd.start("if program == 'training.train.worker':\n    time.sleep(1)\n" + stand_in())
    wait_for(lambda: all(workers_of(process.pid) for process in crowd.processes.values()))
    crowd.processes["algo-1"].send_signal(signal.SIGTERM)
    assert crowd.codes() == [143, 143]


def test_work_that_is_done_before_the_signal_is_seen_is_done(alone: Crowd) -> None:
    alone.start(stand_in("while not stop.is_set:\n    time.sleep(0.01)\nreturn True"))
    alone.begun()
    alone.processes["algo-1"].send_signal(signal.SIGTERM)
    assert alone.codes() == [0]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="takes two CPUs")
def test_each_worker_of_a_host_has_the_cpus_of_its_node(alone: Crowd) -> None:
    wait = "while not os.path.exists('/proc/self/nothing'): time.sleep(0.05)"
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "OMP_NUM_THREADS")
    alone.start(
        TWO_NODES
        + stand_in(
            f"if rank == 1: raise ValueError([sorted(os.sched_getaffinity(0)), "
            f"[os.environ[name] for name in {names}]])\n{wait}"
        )
    )
    second = sorted(os.sched_getaffinity(0))[1]
    assert alone.reason() == (
        f"Rank 1 on algo-1: ValueError: [[{second}], ['1', '2', '1', '2', '0', '127.0.0.1', '1']]\n"
    )


def test_a_folder_that_cannot_be_written_is_the_reason_before_anything_starts(alone: Crowd, tmp_path: Path) -> None:
    (tmp_path / "algo-1").mkdir()
    (tmp_path / "algo-1" / "checkpoints").write_text("no folder", "utf-8")
    alone.start(stand_in())
    assert alone.reason() == f"The folder {tmp_path}/algo-1/checkpoints cannot be made: File exists.\n"


def test_workers_talk_over_the_network_on_which_their_hosts_met(crowd: Crowd) -> None:
    crowd.start(stand_in("if rank == 1:\n    raise ValueError(os.environ.get('GLOO_SOCKET_IFNAME', 'none'))"))
    assert crowd.reason() == "Rank 1 on algo-2: ValueError: lo\n"


def _catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
