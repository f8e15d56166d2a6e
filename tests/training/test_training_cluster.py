"""Which workers run where, without starting any."""

from pathlib import Path

import pytest

from training.cluster import read_cluster
from training.cuda_compat import environment


def test_hosts_are_numbered_alike_whatever_the_order() -> None:
    for hosts in (["algo-1", "algo-2"], ["algo-2", "algo-1"]):
        second = read_cluster({"current_host": "algo-2", "hosts": hosts, "network_interface_name": "lo"}, {})
        assert second.environment(0) == {
            "MASTER_ADDR": "algo-1",
            "MASTER_PORT": "29500",
            "RANK": "1",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "2",
            "GLOO_SOCKET_IFNAME": "lo",
            "NCCL_SOCKET_IFNAME": "lo",
        }


def test_an_interface_that_is_not_there_is_not_named() -> None:
    found = read_cluster({"current_host": "a", "hosts": ["a", "b"], "network_interface_name": "eth77"}, {})
    assert "GLOO_SOCKET_IFNAME" not in found.environment(0)


def test_without_a_file_there_is_one_worker_on_this_host() -> None:
    found = read_cluster({}, {"MASTER_PORT": "1234"}).environment(0)
    assert (found["WORLD_SIZE"], found["RANK"], found["MASTER_ADDR"]) == ("1", "0", "127.0.0.1")
    assert found["MASTER_PORT"] == "1234"


@pytest.mark.parametrize(("visible", "workers"), [(None, 4), ("0,2", 2), ("", 1), ("-1", 1)])
def test_there_is_a_worker_for_each_gpu_that_may_be_used(
    visible: str | None, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [Path(f"/dev/nvidia{name}") for name in ("0", "1", "2", "3", "ctl", "-uvm")]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(devices))
    variables = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = read_cluster({"current_host": "b", "hosts": ["a", "b"]}, variables)
    assert found.workers == workers
    assert found.environment(0)["RANK"] == str(workers)


@pytest.mark.parametrize(("driver", "used"), [("570.10", True), ("610.43.02", False), ("620.1", False)])
def test_older_drivers_get_the_compatibility_libraries(driver: str, used: bool, tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.610.43.02").touch()
    (tmp_path / "libcuda.so.1").symlink_to("libcuda.so.610.43.02")
    version = tmp_path / "version"
    version.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Mon Sep 1\nGCC version: 12", "utf-8")
    found = environment({"LD_LIBRARY_PATH": "/a"}, compat=tmp_path, driver=version)
    assert found == ({"LD_LIBRARY_PATH": f"{tmp_path}:/a"} if used else {})


def test_machines_without_a_driver_keep_their_libraries(tmp_path: Path) -> None:
    assert environment({}, compat=tmp_path, driver=tmp_path / "none") == {}
