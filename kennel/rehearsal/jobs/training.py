"""CreateTrainingJob: hosts, channels, the artifact, checkpoints in S3 and the spot interruption that they survive."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kennel.rehearsal.containers import Container, Network
from kennel.rehearsal.jobs.context import Context, JobLog
from kennel.rehearsal.jobs.contract import (
    Outcome,
    check_outcome,
    path_on_machine,
    resource_config,
    run_hosts,
    thread_limit,
    write_config,
)
from kennel.rehearsal.jobs.store import Store, pack

_DAY_S = 86_400
_FOLDERS = ("input/config", "input/data", "model", "output/data", "checkpoints", "tmp")


@dataclass
class TrainingJob:
    """One training job. `request` is CreateTrainingJob's without the name; all its values are resolved."""

    context: Context
    name: str
    request: Mapping[str, Any]

    def __post_init__(self) -> None:
        role = self.request["RoleArn"]
        self._store: Store = self.context.store(role)
        self._log: JobLog = self.context.log("TrainingJobs", self.name, role)
        self._log.metrics = self.request["AlgorithmSpecification"].get("MetricDefinitions", [])
        self._folder = self.context.work / self.context.execution.id / self.name
        count = int(self.request["ResourceConfig"].get("InstanceCount", 1))
        self._hosts = [f"algo-{number}" for number in range(1, count + 1)]
        self._roots = [self._folder / host for host in self._hosts]

    def run(self) -> dict[str, Any]:
        """Return the answer of DescribeTrainingJob; raise JobFailed with the job's own reason."""
        try:
            with self._log:
                outcome = self._attempt()
                if outcome.ended_by == "interruption":
                    self._log.write("The spot instance was taken away: SIGTERM; starting again from the checkpoint.")
                    outcome = self._attempt()
            check_outcome(outcome, self._limit_s, [root / "output" / "failure" for root in self._roots])
            return self._description(self._upload())
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _attempt(self) -> Outcome:
        """Run the job once on new instances, with its checkpoints from S3 before and to S3 afterwards."""
        shutil.rmtree(self._folder, ignore_errors=True)
        config = self.request.get("CheckpointConfig")
        checkpoints = Checkpoints(self._store, config, self._key) if config else None
        has_checkpoint = partial(checkpoints.has_new, self._roots) if checkpoints else lambda: False
        spot = bool(self.request.get("EnableManagedSpotTraining"))
        interruption = SpotInterruption(self.context, spot, has_checkpoint)
        with self.context.engine.network() as network:
            for host, root in zip(self._hosts, self._roots, strict=True):
                self._prepare(host, root, network)
                if checkpoints:
                    checkpoints.download(root)
            outcome = run_hosts(
                self.context.engine,
                [self._container(host, network, interruption) for host in self._hosts],
                limit_s=self._limit_s,
                interrupted=interruption.due,
                stopped=lambda: self.context.stopping,
            )
        if checkpoints:
            checkpoints.upload(self._roots)
        return outcome

    def _prepare(self, host: str, root: Path, network: Network) -> None:
        for folder in _FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        write_config(root / "input" / "config", self._config(host, network))
        for channel in self.request.get("InputDataConfig", []):
            folder = root / "input" / "data" / channel["ChannelName"]
            self._store.download_source(channel["DataSource"]["S3DataSource"], folder)

    def _config(self, host: str, network: Network) -> dict[str, Any]:
        channels = {
            channel["ChannelName"]: {
                "TrainingInputMode": channel.get("InputMode", "File"),
                "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
                    "S3DataDistributionType", "FullyReplicated"
                ),
                "RecordWrapperType": channel.get("RecordWrapperType", "None"),
            }
            for channel in self.request.get("InputDataConfig", [])
        }
        parameters = {name: str(value) for name, value in self.request.get("HyperParameters", {}).items()}
        resources = resource_config(
            self.request["ResourceConfig"]["InstanceType"], self._hosts, host, network.interface
        )
        return {"hyperparameters": parameters, "inputdataconfig": channels, "resourceconfig": resources}

    def _container(self, host: str, network: Network, interruption: "SpotInterruption") -> Container:
        def on_line(text: str) -> None:
            if self._log.write(text, host):
                interruption.metric()

        algorithm = self.request["AlgorithmSpecification"]
        return Container(
            program="training",
            root=self._folder / host,
            image=algorithm.get("TrainingImage", ""),
            entrypoint=algorithm.get("ContainerEntrypoint", ()),
            arguments=algorithm.get("ContainerArguments") or (() if "ContainerEntrypoint" in algorithm else ("train",)),
            environment={
                "TRAINING_JOB_NAME": self.name,
                "TRAINING_JOB_ARN": self.context.arn("training-job", self.name),
                "AWS_REGION": self.context.region,
                **thread_limit(len(self._hosts)),
                **self.request.get("Environment", {}),
            },
            network=network,
            host=host,
            hosts=self._hosts,
            on_line=on_line,
        )

    @property
    def _limit_s(self) -> float:
        return float(self.request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", _DAY_S))

    @property
    def _key(self) -> str:
        return str(self.request["OutputDataConfig"].get("KmsKeyId", ""))

    def _upload(self) -> str:
        """Upload model.tar.gz, and output.tar.gz when there is any output; return the URI of the first."""
        target = f"{self.request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"
        for part, archive in (("output/data", "output.tar.gz"), ("model", "model.tar.gz")):
            folders = [root / part for root in self._roots]
            if part == "model" or any(any(folder.iterdir()) for folder in folders):
                pack(folders, self._folder / archive)
                self._store.put(self._folder / archive, f"{target}/{archive}", self._key)
        return f"{target}/model.tar.gz"

    def _description(self, model: str) -> dict[str, Any]:
        final = [{"MetricName": name, "Value": value} for name, value in self._log.final.items()]
        return {
            **self.request,
            "TrainingJobName": self.name,
            "TrainingJobArn": self.context.arn("training-job", self.name),
            "TrainingJobStatus": "Completed",
            "ModelArtifacts": {"S3ModelArtifacts": model},
            "FinalMetricDataList": final,
        }


class Checkpoints:
    """The folder of checkpoints that all hosts of a job share with the S3Uri of its CheckpointConfig.

    Other jobs may write to the same S3Uri meanwhile: objects that this job has not downloaded stay as they are.
    """

    def __init__(self, store: Store, config: Mapping[str, str], key_id: str) -> None:
        self._store, self._uri, self._key = store, config["S3Uri"], key_id
        self._path = config.get("LocalPath", "/opt/ml/checkpoints")
        self._downloaded: set[str] = set()

    def download(self, root: Path) -> None:
        """Copy what is in S3 into the folder of one host."""
        folder = path_on_machine(root, self._path)
        self._store.download_if_any(self._uri, folder)
        self._downloaded |= set(_files(folder))

    def has_new(self, roots: Sequence[Path]) -> bool:
        """Return whether a host has written a whole file since the download."""
        found = (name for root in roots for name in _files(path_on_machine(root, self._path)))
        return any(name not in self._downloaded and not name.endswith(".partial") for name in found)

    def upload(self, roots: Sequence[Path]) -> None:
        """Copy all files to S3, and delete there those that were downloaded and are gone from every host."""
        folders = [path_on_machine(root, self._path) for root in roots]
        for folder in folders:
            self._store.upload(folder, self._uri, self._key)
        remaining = {name for folder in folders for name in _files(folder)}
        for name in sorted(self._downloaded - remaining):
            self._store.delete(f"{self._uri.rstrip('/')}/{name}")


class SpotInterruption:
    """Takes the spot instance away once: after the first metric, or as soon as `has_checkpoint` returns true."""

    def __init__(self, context: Context, spot: bool, has_checkpoint: Callable[[], bool]) -> None:
        self._context, self._has_checkpoint = context, has_checkpoint
        self._armed = spot and context.interruptions > 0
        self._metric_seen = False

    def metric(self) -> None:
        self._metric_seen = True

    def due(self) -> bool:
        """Return true once, when the instance is to be taken away."""
        if self._armed and (self._metric_seen or self._has_checkpoint()):
            self._armed = False
            self._context.interruptions -= 1
            return True
        return False


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder).as_posix()
