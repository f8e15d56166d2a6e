"""Which workers run where, without starting any."""

import os
from pathlib import Path

import pytest

from training.distributed import cluster
from training.distributed.cluster import bind_to_numa_node, cuda_environment, read_cluster, worker_cpus
from training.errors import TrainingError

CPUS = frozenset({0, 1, 2, 3})


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of four CPUs that says nothing else of itself; its files can be written below the folder."""
    for name, place in (
        ("DEVICES", "dev"),
        ("NODES", "nodes"),
        ("QUOTA", "cpu.max"),
        ("CUDA_COMPAT", "compat"),
        ("CUDA_DRIVER", "version"),
    ):
        monkeypatch.setattr(cluster, name, tmp_path / place)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(CPUS))
    (tmp_path / "dev").mkdir()
    (tmp_path / "nodes").mkdir()
    return tmp_path


def _node(machine: Path, number: int, cpus: str) -> None:
    (machine / "nodes" / f"node{number}").mkdir()
    (machine / "nodes" / f"node{number}" / "cpulist").write_text(cpus + "\n", "utf-8")


def test_hosts_are_numbered_alike_whatever_the_order() -> None:
    for hosts in (["algo-1", "algo-2"], ["algo-2", "algo-1"]):
        second = read_cluster({"current_host": "algo-2", "hosts": hosts, "network_interface_name": "lo"}, {})
        assert (second.node_rank, second.world_size, second.address, second.port) == (1, 2, "algo-1", 29500)
        assert second.environment() == {
            "SM_CURRENT_HOST": "algo-2",
            "GLOO_SOCKET_IFNAME": "lo",
            "NCCL_SOCKET_IFNAME": "lo",
        }


def test_an_interface_that_is_not_there_is_not_named() -> None:
    found = read_cluster({"current_host": "a", "hosts": ["a", "b"], "network_interface_name": "eth77"}, {})
    assert found.interface == ""
    assert "GLOO_SOCKET_IFNAME" not in found.environment()


def test_hosts_on_one_machine_talk_over_loopback() -> None:
    resources = {"current_host": "a", "hosts": ["a", "b"], "network_interface_name": "eth77"}
    assert read_cluster(resources, {"MASTER_ADDR": "127.0.0.1"}).interface == "lo"


def test_without_a_file_there_is_one_worker_on_this_host_over_loopback() -> None:
    found = read_cluster({}, {"MASTER_ADDR": "elsewhere"})
    assert (found.workers, found.threads, found.address, found.interface) == (1, 0, "127.0.0.1", "lo")
    variables = found.environment()
    assert (variables["WORLD_SIZE"], variables["RANK"], variables["LOCAL_RANK"]) == ("1", "0", "0")


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", ""])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(TrainingError, match="MASTER_PORT must be a port from 1 to 65535"):
        read_cluster({}, {"MASTER_PORT": port})


@pytest.mark.parametrize(("visible", "workers"), [(None, 4), ("0,2", 2), ("", 1), ("-1", 1)])
def test_there_is_a_worker_for_each_gpu_that_may_be_used(visible: str | None, workers: int, machine: Path) -> None:
    for name in ("0", "1", "2", "3", "ctl", "-uvm"):
        (machine / "dev" / f"nvidia{name}").touch()
    variables = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = read_cluster({"current_host": "b", "hosts": ["a", "b"]}, variables)
    assert found.workers == workers
    assert found.threads == (0 if workers == 1 else 4 // workers)


def test_there_is_a_worker_for_each_numa_node_on_its_own_cpus(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _node(machine, 10, "1-2")
    _node(machine, 2, "0,3")
    assert worker_cpus({}) == (frozenset({0, 3}), frozenset({1, 2}))
    found = read_cluster({}, {})
    assert (found.workers, found.threads) == (2, 2)
    bound: list[object] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: bound.append(cpus))
    bind_to_numa_node({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"})
    bind_to_numa_node({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3"})  # not by this program's count
    assert bound == [{1, 2}]


def test_nodes_that_may_not_be_used_or_hold_only_memory_get_no_worker(machine: Path) -> None:
    _node(machine, 0, "0-3,8-11")
    _node(machine, 1, "4-7")
    _node(machine, 2, "")
    assert worker_cpus({}) == (frozenset(),)


@pytest.mark.parametrize("broken", ["0-1", "none"])
def test_nodes_that_do_not_tell_of_all_cpus_are_not_believed(broken: str, machine: Path) -> None:
    _node(machine, 0, broken)
    _node(machine, 1, "2")
    assert worker_cpus({}) == (frozenset(),)


@pytest.mark.parametrize(
    ("quota", "nodes", "threads"),
    [
        ("max 100000", 1, 0),
        ("400000 100000", 1, 0),
        ("250000 100000", 1, 3),
        ("50000 100000", 1, 1),
        ("200000 100000", 2, 1),
        ("nonsense", 2, 2),
    ],
)
def test_threads_keep_to_the_containers_share_of_the_cpus(quota: str, nodes: int, threads: int, machine: Path) -> None:
    (machine / "cpu.max").write_text(quota + "\n", "utf-8")
    for number, cpus in enumerate(["0-3"] if nodes == 1 else ["0-1", "2-3"]):
        _node(machine, number, cpus)
    assert read_cluster({}, {}).threads == threads


def test_a_number_of_threads_that_was_chosen_is_kept(machine: Path) -> None:
    _node(machine, 0, "0-1")
    _node(machine, 1, "2-3")
    assert "OMP_NUM_THREADS" not in read_cluster({}, {"OMP_NUM_THREADS": "7"}).environment()


@pytest.mark.parametrize(("driver", "used"), [("570.10", True), ("610.43.02", False), ("620.1", False)])
def test_older_drivers_get_the_compatibility_libraries(driver: str, used: bool, machine: Path) -> None:
    compat = machine / "compat"
    compat.mkdir()
    (compat / "libcuda.so.610.43.02").touch()
    (compat / "libcuda.so.1").symlink_to("libcuda.so.610.43.02")
    assert cuda_environment({}) == {}  # this machine has no driver
    text = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Mon Sep 1\nGCC version: 12"
    (machine / "version").write_text(text, "utf-8")
    assert cuda_environment({"LD_LIBRARY_PATH": "/a"}) == ({"LD_LIBRARY_PATH": f"{compat}:/a"} if used else {})
