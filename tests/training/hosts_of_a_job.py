"""Hosts of training jobs as real processes on this machine, each with folders of its own."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training.paths import Paths

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"model": "mobilenet_v3_small", "image_size": "32", "epochs": "6", "batch_size": "8", "seed": "3"}
SETTINGS |= {"int8": "no"}  # which takes seconds and changes nothing of what is learned


class Process(subprocess.Popen[str]):
    """A process that does not outlive a test that failed."""

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind:
            self.kill()
        super().__exit__(kind, *rest)


class Job:
    """One host's job, given the prepared channels if there are any."""

    def __init__(
        self, root: Path, prepared: Path | None, settings: dict[str, str], log: Path | None = None, **config: Any
    ) -> None:
        self.paths, self.log = Paths(root), log
        self.paths.config.mkdir(parents=True)
        (self.paths.config / "hyperparameters.json").write_text(json.dumps(settings), "utf-8")
        for name, content in config.items():
            (self.paths.config / f"{name}.json").write_text(json.dumps(content), "utf-8")
        for channel in ("data/train", "data/valid", "weights") if prepared else ():
            assert prepared
            shutil.copytree(prepared / channel, self.paths.channel(Path(channel).name))

    def start(self, *command: str, **variables: str) -> "subprocess.Popen[str]":
        """Start PID 1, or another command; what it prints goes into a pipe or is added to `log`, if it has one."""
        environment = {**os.environ, "OPT_ML": str(self.paths.root), "OMP_NUM_THREADS": "1", **variables}
        words = command or (sys.executable, "-m", "training", "train")
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(self.log.open("a")) if self.log else subprocess.PIPE
            return Process(words, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, text=True)

    def finish(self, **variables: str) -> tuple[int, str]:
        with self.start(**variables) as process:
            output = process.communicate(timeout=300)[0]
        return process.returncode, output

    @property
    def failure(self) -> str:
        return (self.paths.output / "failure").read_text("utf-8")

    def weights(self) -> str:
        """The hash of what was learned."""
        import torch

        state = torch.load(self.paths.model / "weights.pt", weights_only=True)
        return hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()


def until(process: "subprocess.Popen[str]", start: str) -> None:
    """Read the job's log up to a line that begins so."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith(start):
            return
    raise AssertionError(f"{start!r} was never printed: {''.join(seen)}")


def meeting_place() -> dict[str, str]:
    """Variables that let the hosts of one job find each other on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Return what `condition` returns as soon as it is anything."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)
    return found


def children_of(pid: int, module: str) -> list[int]:
    """The processes that run `python -m module` among a process's children and, through torchrun, grandchildren."""
    found = []
    try:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split():
            words = Path(f"/proc/{child}/cmdline").read_text("utf-8").split("\0")
            runs = words[words.index("-m") + 1] if "-m" in words else ""
            found += [int(child)] if runs == module else children_of(int(child), module)
    except OSError:  # one has ended meanwhile
        return []
    return found


def workers_of(pid: int) -> list[int]:
    """The worker processes of a launcher."""
    return children_of(pid, "training.distributed.worker")


def plant(folder: Path, code: str) -> dict[str, str]:
    """Variables that let every Python process of a job run `code` before anything else.

    `program` is the module that it was started with, `rank` the worker's rank.
    """
    folder.mkdir(parents=True, exist_ok=True)
    head = (
        "import os, sys, time, types\n"
        "program = sys.orig_argv[sys.orig_argv.index('-m') + 1] if '-m' in sys.orig_argv else ''\n"
        "rank = int(os.environ.get('RANK', '0'))\n"
    )
    (folder / "sitecustomize.py").write_text(head + code, "utf-8")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def stand_in(work: str) -> str:
    """Code to plant: in place of learning, workers do `work`, which may look at `stop` and returns what `run` does."""
    return f"""
def run(paths, settings, stop):
    def begun():
        print("begun", rank, flush=True)
{textwrap.indent(textwrap.dedent(work), "    ")}
if program == "training.distributed.worker":
    sys.modules["training.train.run"] = types.SimpleNamespace(run=run)
"""


class Cluster:
    """Launchers of one job's hosts, whose workers do what was planted."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._meeting = folder, meeting_place()
        self.jobs = {
            name: Job(folder / name, None, SETTINGS, resourceconfig={"current_host": name, "hosts": names})
            for name in names
        }
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, code: str, *names: str, **variables: str) -> None:
        """Start these hosts, or all."""
        for name in names or self.jobs:
            planted = plant(self._folder / f"plant-{name}", code)
            self.processes[name] = self.jobs[name].start(**{**self._meeting, **planted, **variables})

    def begun(self) -> list[int]:
        """Wait until a worker of each host has begun; return their processes, in the order of ranks."""
        for process in self.processes.values():
            until(process, "begun")
        return [worker for process in self.processes.values() for worker in workers_of(process.pid)]

    def end(self, name: str) -> tuple[int, str]:
        """Wait until the host ends; return its exit code and what it printed that was not read yet."""
        output = self.processes[name].communicate(timeout=300)[0]
        return self.processes[name].returncode, output

    def failure(self, name: str) -> str:
        """Wait until the host fails and return its reason."""
        code, output = self.end(name)
        assert code == 1, output
        return self.jobs[name].failure

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.communicate()
