"""One run on this machine, from a folder of images to an evaluated model: the jobs that SageMaker would start.

Its folder holds run.json, by which it can be resumed and compared.
"""

import contextlib
import json
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from kennel.console import Display
from kennel.errors import KennelError
from kennel.files import disk_full, locked, replace_text
from kennel.rehearsal.containers.engine import Container, ContainerEngine, ContainerError, Network
from kennel.rehearsal.jobs.contract import JobFailed, check_outcome, resource_config, run_hosts, write_config
from kennel.rehearsal.jobs.store import pack
from kennel.upload.upload import upload_dataset
from training.layout import unused

_CHANNELS = ("train", "valid", "weights")
_FILE = "run.json"


@dataclass
class Record:
    """run.json. `status`: running, done, failed or interrupted; `seconds` by step, of those that are done."""

    run: str
    data: str
    weights: str
    hyperparameters: dict[str, str]
    duplicates: str
    instances: int
    started: str
    status: str = "running"
    reason: str = ""
    fingerprint: str = ""
    images: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    """`runs/<run>/`: ml/ while it runs, then evaluation/, report/, output/model.tar.gz; run.log, run.json."""

    path: Path
    record: Record

    def save(self) -> None:
        """Replace run.json as a whole: a run that is cut off leaves the one before."""
        replace_text(self.path / _FILE, json.dumps({"format": 1, **asdict(self.record)}, indent=1))

    @property
    def cache(self) -> Path:
        """Return the folder of what all runs on the same data share: features, and checkpoints by their settings."""
        return self.path.parent / "cache" / self.record.fingerprint

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Return a lock of the run for a with block, which raises KennelError while another process has it."""
        return locked(self.path, f"Run {self.record.run} is going on in another process.")


def new_run(
    runs: Path, *, data: Path, weights: Path | None, hyperparameters: Mapping[str, str], duplicates: str, instances: int
) -> RunFolder:
    """Make the folder of a new run; raise KennelError where that cannot be."""
    now = datetime.now(UTC)
    name = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    record = Record(
        run=name,
        data=str(data.resolve()),
        weights=str(weights.resolve()) if weights else "",
        hyperparameters=dict(hyperparameters),
        duplicates=duplicates,
        instances=instances,
        started=now.isoformat(timespec="seconds"),
    )
    folder = RunFolder(runs.resolve() / name, record)
    try:
        folder.path.mkdir(parents=True)
        folder.save()
    except OSError as error:
        raise KennelError(f"--runs {runs}: {folder.path} cannot be made ({error.strerror}).") from error
    return folder


def read_run(runs: Path, name: str) -> RunFolder:
    """Return the folder of an earlier run; raise KennelError where there is none or its run.json is broken."""
    path = runs.resolve() / name
    if not re.fullmatch(r"[\w.-]+", name) or not (path / _FILE).is_file():
        known = ", ".join(sorted(file.parent.name for file in runs.glob(f"*/{_FILE}"))[-3:]) or "none"
        raise KennelError(f"There is no run {name!r} in {runs}; the newest there: {known}.")
    try:
        content: dict[str, Any] = json.loads((path / _FILE).read_text(encoding="utf-8"))
        content.pop("format")
        return RunFolder(path, Record(**content))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KennelError(f"{path / _FILE} cannot be read ({error}).") from error


class Interrupted(KennelError):
    """The run was stopped on request and can go on."""


class LocalRun:
    """Runs or resumes `run`. `stopped` says whether the operator wants the end: a KeyboardInterrupt then ends it."""

    def __init__(self, run: RunFolder, engine: ContainerEngine, display: Display, stopped: Callable[[], bool]) -> None:
        self._run, self._display, self._stopped = run, display, stopped
        self._log: IO[str] | None = None
        self._jobs = Jobs(run, engine, self._line, stopped)

    def go(self) -> None:
        """Do what is not done yet. Raise Interrupted, or KennelError with the reason of a failure."""
        record = self._run.record
        record.status, record.reason = "running", ""
        self._run.save()
        try:
            with (self._run.path / "run.log").open("a", encoding="utf-8") as self._log:
                self._step("Read", self._read)
                self._step("Prepare", self._jobs.prepare)
                self._step("Train", self._jobs.train)
                self._step("Evaluate", self._jobs.evaluate)
            self._jobs.clear()
            record.status = "done"
        except KeyboardInterrupt:
            record.status = "interrupted"
            raise Interrupted(f"stopped. Go on with `kennel train --resume {record.run}`.") from None
        except BaseException as error:
            record.status, record.reason = "failed", str(error)
            raise
        finally:
            self._run.save()

    def _step(self, name: str, work: Callable[[], None]) -> None:
        record = self._run.record
        if name in record.seconds:
            return self._display.end(self._display.begin(name), "done", "done before", record.seconds[name])
        try:
            with self._display.step(name) as step:
                work()
        except (JobFailed, ContainerError, OSError) as error:
            log = self._run.path / "run.log"
            raise KennelError(f"{name} failed: {_reason(error)} The log: {log}") from error
        record.seconds[name] = round(step.seconds, 3)
        self._run.save()

    def _read(self) -> None:
        """Pack the images as an upload does, under the same fingerprint."""
        record, place = self._run.record, self._run.path / "ml" / "bucket"
        shutil.rmtree(place, ignore_errors=True)
        weights = Path(record.weights) if record.weights else None
        sent = upload_dataset(
            Path(record.data), bucket="local", s3=FolderBucket(place), weights=weights, progress=self._unless_stopped
        )
        record.fingerprint, record.images = sent.fingerprint, sent.images
        if sent.left_out:
            self._line("", f"not used: {unused(sent.left_out)}")
        shutil.rmtree(self._jobs.dataset, ignore_errors=True)
        self._jobs.dataset.parent.mkdir(parents=True, exist_ok=True)
        (place / sent.manifest_key.removesuffix(".manifest")).rename(self._jobs.dataset)
        shutil.rmtree(place)

    def _unless_stopped(self, doing: str, done: int, total: int) -> None:
        if self._stopped():
            raise KeyboardInterrupt

    def _line(self, host: str, text: str) -> None:
        self._display.line(text, job=host)
        if self._log and not self._log.closed:
            self._log.write(f"{host} {text}\n" if host else f"{text}\n")
            self._log.flush()


class Jobs:
    """The three jobs, each with the folders and files that SageMaker would give it.

    `line` takes (host, line of the log); `stopped` says whether the run shall end.
    """

    def __init__(
        self, run: RunFolder, engine: ContainerEngine, line: Callable[[str, str], None], stopped: Callable[[], bool]
    ) -> None:
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
                self._write_inputs(root, hosts, host, network)
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

    def _write_inputs(self, root: Path, hosts: Sequence[str], host: str, network: Network) -> None:
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
        """Run them to their end; raise JobFailed with the program's own reason, or KeyboardInterrupt."""
        if self._stopped():
            raise KeyboardInterrupt
        for container in containers:
            (container.root / reason).unlink(missing_ok=True)
        outcome = run_hosts(self._engine, containers, limit_s=float("inf"), stopped=self._stopped)
        if self._stopped() and outcome.code:
            raise KeyboardInterrupt
        check_outcome(outcome, 0, [container.root / reason for container in containers])


class FolderBucket:
    """The three calls of an S3 client that `upload_dataset` makes; keys are paths below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def head_object(self, *, Bucket: str, Key: str) -> Any:
        """Nothing is ever there before: raises what S3 answers then."""
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        answer = {"Error": {"Code": "404"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
        raise ClientError(answer, "HeadObject")

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:
        self._place(Key).write_bytes(Body)

    def upload_fileobj(self, stream: IO[bytes], Bucket: str, Key: str, **more: Any) -> None:
        with self._place(Key).open("wb") as target:
            shutil.copyfileobj(stream, target)

    def _place(self, key: str) -> Path:
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _reason(error: Exception) -> str:
    if full := disk_full(error, "the run", "choose another with --runs"):
        return full
    # The first line: where the program gave no reason, its log's end follows, which has been shown.
    return str(error).removeprefix("AlgorithmError: ").strip().split("\n")[0]


def _link(target: Path, link: Path) -> None:
    with contextlib.suppress(FileExistsError):
        link.symlink_to(target)


def _replace(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise JobFailed(f"{source.name}/ was not written.")
    shutil.rmtree(target, ignore_errors=True)
    shutil.move(source, target)
