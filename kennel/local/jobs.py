"""The three jobs of a run, each with the folders and files that SageMaker would give it."""

import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from kennel.local.record import RunFolder
from kennel.rehearsal.containers import Container, ContainerEngine, Network
from kennel.rehearsal.jobs.contract import check_outcome, resource_config, run_hosts, write_config
from kennel.rehearsal.jobs.events import JobFailed
from kennel.rehearsal.jobs.store import pack

_CHANNELS = ("train", "valid", "weights")
Line = Callable[[str, str], None]


class Stopped(Exception):
    """The operator has asked for the end; what was running has ended well."""


class Jobs:
    """`line` takes (host, line of the log); `stopped` says whether the run shall end."""

    def __init__(self, run: RunFolder, engine: ContainerEngine, line: Line, stopped: Callable[[], bool]) -> None:
        self._run, self._engine, self._line, self._stopped = run, engine, line, stopped
        self._ml = run.path / "ml"
        self._output = self._ml / "prepare" / "processing" / "output"

    @property
    def dataset(self) -> Path:
        """Where Prepare looks for the uploaded files."""
        return self._ml / "prepare" / "processing" / "input" / "dataset"

    def prepare(self) -> None:
        record = self._run.record
        arguments = ["--duplicates", record.duplicates] if record.duplicates else []
        arguments += ["--mode", record.hyperparameters["mode"]] if "mode" in record.hyperparameters else []
        self._process("prepare", arguments)
        shutil.rmtree(self.dataset)  # packed anew by now
        _replace(self._output / "report", self._run.path / "report")

    def train(self) -> None:
        """Several instances are as many process groups, which meet as they would over SageMaker's network."""
        hosts = [f"algo-{number}" for number in range(1, self._run.record.instances + 1)]
        roots = [self._ml / host for host in hosts]
        with self._engine.network() as network:
            for host, root in zip(hosts, roots, strict=True):
                self._furnish(root, hosts, host, network)
            self._start([self._trainer(root, hosts, network) for root in roots], "output/failure")
        target = self._run.path / "output"
        target.mkdir(exist_ok=True)
        pack([root / "model" for root in roots], target / "model.tar.gz")

    def evaluate(self) -> None:
        inputs = self._ml / "evaluate" / "processing" / "input"
        inputs.mkdir(parents=True, exist_ok=True)
        _link(self._output / "data" / "test", inputs / "test")
        _link(self._run.path / "output", inputs / "model")
        self._process("evaluate", [])
        _replace(self._ml / "evaluate" / "processing" / "output" / "evaluation", self._run.path / "evaluation")

    def clear(self) -> None:
        """What is worth keeping stands beside ml/ by now, and checkpoints in the cache."""
        shutil.rmtree(self._ml)

    def _process(self, command: str, arguments: Sequence[str]) -> None:
        root = self._ml / command
        shutil.rmtree(root / "processing" / "output", ignore_errors=True)  # of an attempt that was cut off
        (root / "processing" / "output").mkdir(parents=True)
        write_config(root / "config", {"resourceconfig": resource_config("", ["algo-1"], "algo-1")})
        with self._engine.network() as network:
            container = Container(
                program="training",
                root=root,
                entrypoint=("python3", "-m", "training", command),
                arguments=arguments,
                network=network,
                on_line=lambda text: self._line("", text),
            )
            self._start([container], "output/message")

    def _furnish(self, root: Path, hosts: Sequence[str], host: str, network: Network) -> None:
        shutil.rmtree(root / "model", ignore_errors=True)
        for folder in ("input/data", "model", "output/data"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        config = {
            "hyperparameters": self._run.record.hyperparameters,
            "inputdataconfig": {channel: {"TrainingInputMode": "File"} for channel in _CHANNELS},
            "resourceconfig": resource_config("", hosts, host, network.interface),
        }
        write_config(root / "input" / "config", config)
        for channel in _CHANNELS:
            made = self._output / "weights" if channel == "weights" else self._output / "data" / channel
            _link(made, root / "input" / "data" / channel)
        self._run.cache.mkdir(parents=True, exist_ok=True)
        _link(self._run.cache, root / "checkpoints")

    def _trainer(self, root: Path, hosts: Sequence[str], network: Network) -> Container:
        shown = root.name if len(hosts) > 1 else ""
        return Container(
            program="training",
            root=root,
            arguments=("train",),
            network=network,
            host=root.name,
            hosts=hosts,
            on_line=lambda text: self._line(shown, text),
        )

    def _start(self, containers: Sequence[Container], reason: str) -> None:
        """Run them to their end; raises JobFailed with the program's own reason, or Stopped."""
        if self._stopped():
            raise Stopped
        for container in containers:
            (container.root / reason).unlink(missing_ok=True)
        outcome = run_hosts(self._engine, containers, limit_s=float("inf"), stopped=self._stopped)
        if self._stopped() and outcome.code:
            raise Stopped
        check_outcome(outcome, 0, [container.root / reason for container in containers])


def _link(target: Path, link: Path) -> None:
    with contextlib.suppress(FileExistsError):
        link.symlink_to(target)


def _replace(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise JobFailed(f"{source.name}/ was not written.")
    shutil.rmtree(target, ignore_errors=True)
    shutil.move(source, target)
