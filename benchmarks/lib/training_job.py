"""Runs Kennel's training program as its container does, and reads the figures in its log."""

import hashlib
import json
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lib.processes import output_of, start
from kennel.rehearsal.containers.local import free_port


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
    output_of(start([sys.executable, "-m", "training", "prepare"], OPT_ML=str(folder)))
    made, data = folder / "processing" / "output", folder / "input" / "data"
    data.mkdir(parents=True)
    for channel in ("train", "valid"):
        shutil.move(made / "data" / channel, data / channel)
    shutil.move(made / "weights", data / "weights")
    return data


def train(data: Path, folder: Path, settings: Mapping[str, Any], *, cores: Sequence[int] = ()) -> RunLog:
    """Return the first host's log of training on the channels in `data`; raise RuntimeError with the log if it fails.

    One host for each of `cores`, bound to that core; without them one host on all cores.
    """
    hosts = [f"algo-{place + 1}" for place in range(max(1, len(cores)))]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())} | ({"OMP_NUM_THREADS": "1"} if cores else {})
    begun, children = time.perf_counter(), []
    for place, host in enumerate(hosts):
        _write(folder / host / "input", data, host, hosts, settings)
        bound = ["taskset", "--cpu-list", str(cores[place])] if cores else []
        command = [*bound, sys.executable, "-m", "training", "train"]
        children.append(start(command, OPT_ML=str(folder / host), **common))
    logs = [output_of(child) for child in children]
    return RunLog(logs[0], time.perf_counter() - begun)


def _write(given: Path, data: Path, host: str, hosts: Sequence[str], settings: Mapping[str, Any]) -> None:
    config = given / "config"
    config.mkdir(parents=True)
    (given / "data").symlink_to(data)
    strings = {name: str(value) for name, value in settings.items()}
    (config / "hyperparameters.json").write_text(json.dumps(strings))
    resources = {"current_host": host, "hosts": list(hosts), "network_interface_name": "lo"}
    (config / "resourceconfig.json").write_text(json.dumps(resources))
