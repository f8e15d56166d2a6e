"""Runs Kennel's training program as its container does, and reads the figures in its log."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class RunLog:
    """The log of a run, and its duration in seconds."""

    log: str
    seconds: float

    def number(self, line: str, name: str) -> float:
        """Return `name=NUMBER` of the last line that begins with `line`."""
        return float(self.text(line, name))

    def text(self, line: str, name: str) -> str:
        """Return `name=TEXT` of the last line that begins with `line`; raise RuntimeError where there is none."""
        found = re.findall(rf"^{line}\b.*?\b{name}=(\S+)", self.log, re.MULTILINE)
        if not found:
            raise RuntimeError(f"The log has no {name}= in a line that begins with {line!r}:\n{self.log}")
        return str(found[-1])


def prepare(dataset: Path, weights: Path | None, folder: Path) -> Path:
    """Run Prepare on class folders; return the folder that holds the input channels."""
    given = folder / "processing" / "input" / "dataset"
    shutil.copytree(dataset, given)
    if weights:
        (given / "weights").mkdir()
        shutil.copy(weights, given / "weights" / weights.name)
        named = {"file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
        (given / "dataset.json").write_text(json.dumps({"weights": named}))
    _run([[sys.executable, "-m", "training", "prepare"]], [{"OPT_ML": str(folder)}], cores=[None])
    made, data = folder / "processing" / "output", folder / "input" / "data"
    data.mkdir(parents=True)
    for channel in ("train", "valid"):
        shutil.move(made / "data" / channel, data / channel)
    shutil.move(made / "weights", data / "weights")
    return data


def train(data: Path, folder: Path, settings: Mapping[str, Any], *, cores: Sequence[int | None] = (None,)) -> RunLog:
    """Train on the channels in `data`; one host for each of `cores`, bound to that core (None: to all).

    Raise RuntimeError with the log if it fails.
    """
    hosts = [f"algo-{place + 1}" for place in range(len(cores))]
    port = _free_port()
    environments = []
    for host, core in zip(hosts, cores, strict=True):
        root = folder / host
        _write(root / "input" / "config", host, hosts, settings)
        (root / "input" / "data").symlink_to(data)
        threads = {} if core is None else {"OMP_NUM_THREADS": "1"}
        environments.append({"OPT_ML": str(root), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **threads})
    return _run([[sys.executable, "-m", "training", "train"]] * len(hosts), environments, cores=cores)


def _write(config: Path, host: str, hosts: Sequence[str], settings: Mapping[str, Any]) -> None:
    config.mkdir(parents=True)
    strings = {name: str(value) for name, value in settings.items()}
    (config / "hyperparameters.json").write_text(json.dumps(strings))
    resources = {"current_host": host, "hosts": list(hosts), "network_interface_name": "lo"}
    (config / "resourceconfig.json").write_text(json.dumps(resources))


def _run(
    commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]], *, cores: Sequence[int | None]
) -> RunLog:
    """Run the commands side by side; return the log of the first."""
    begun = time.perf_counter()
    with contextlib.ExitStack() as stack:
        children = []
        for command, environment, core in zip(commands, environments, cores, strict=True):
            bound = command if core is None else ["taskset", "--cpu-list", str(core), *command]
            child = subprocess.Popen(
                bound,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(child.kill)
            children.append(child)
        logs = [child.communicate()[0] for child in children]
        if any(child.returncode for child in children):
            raise RuntimeError("\n".join(logs))
    return RunLog(logs[0], time.perf_counter() - begun)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
