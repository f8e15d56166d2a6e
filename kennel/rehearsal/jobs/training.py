"""CreateTrainingJob: hosts, channels, checkpoints, spot, the artifact."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kennel.rehearsal.containers import Container, Network
from kennel.rehearsal.jobs.context import Context, Watch
from kennel.rehearsal.jobs.events import JobFailed
from kennel.rehearsal.jobs.hosts import Outcome, run_hosts
from kennel.rehearsal.jobs.store import Store, pack

_DAY_S = 86_400
_OPT_ML = "/opt/ml"
_FOLDERS = ("input/config", "input/data", "model", "output/data", "checkpoints", "tmp")


@dataclass
class TrainingJob:
    """One job. `request` is CreateTrainingJob's without the name; all values are resolved."""

    context: Context
    step: str
    name: str
    request: Mapping[str, Any]
    label: str = ""

    def __post_init__(self) -> None:
        self._store: Store = self.context.store(self.request["RoleArn"])
        self._folder = self.context.work / self.context.execution.id / self.name
        count = int(self.request["ResourceConfig"].get("InstanceCount", 1))
        self._hosts = [f"algo-{number}" for number in range(1, count + 1)]
        definitions = self.request["AlgorithmSpecification"].get("MetricDefinitions", [])
        self._watch: Watch = self.context.watch(self.step, definitions, self.label)

    def run(self) -> dict[str, Any]:
        """Return what DescribeTrainingJob would; raises JobFailed with the job's own reason."""
        try:
            outcome = self._attempt()
            if outcome.ended_by == "interruption":
                self._watch.say("The spot instance was taken away: SIGTERM; starting again from the checkpoint.")
                outcome = self._attempt()
            self._judge(outcome)
            return self._properties(self._upload())
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _attempt(self) -> Outcome:
        """One start on fresh instances; checkpoints come from and go back to S3."""
        shutil.rmtree(self._folder, ignore_errors=True)
        seen = _Interruption(self.context, bool(self.request.get("EnableManagedSpotTraining")))
        with self.context.engine.network() as network:
            for place, host in enumerate(self._hosts):
                self._prepare(place, self._folder / host, network)
            outcome = run_hosts(
                self.context.engine,
                [self._container(host, network, seen) for host in self._hosts],
                limit_s=self._limit,
                interrupted=seen.due,
                stopped=lambda: self.context.stopping,
            )
        self._save_checkpoints()
        return outcome

    def _prepare(self, place: int, root: Path, network: Network) -> None:
        for folder in _FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        write_config(root / "input" / "config", self._config(self._hosts[place], network))
        for channel in self.request.get("InputDataConfig", []):
            source = channel["DataSource"]["S3DataSource"]
            part = (place, len(self._hosts)) if source.get("S3DataDistributionType") == "ShardedByS3Key" else (0, 1)
            folder = root / "input" / "data" / channel["ChannelName"]
            self._store.fetch(source["S3Uri"], source.get("S3DataType", "S3Prefix"), folder, part)
        if "CheckpointConfig" in self.request:
            self._store.pull(self.request["CheckpointConfig"]["S3Uri"], self._checkpoints(root))

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

    def _container(self, host: str, network: Network, seen: _Interruption) -> Container:
        shown = host if len(self._hosts) > 1 else ""

        def on_line(text: str) -> None:
            if self._watch.line(text, shown):
                seen.metric()

        algorithm = self.request["AlgorithmSpecification"]
        return Container(
            program="training",
            root=self._folder / host,
            entrypoint=algorithm.get("ContainerEntrypoint", ()),
            arguments=algorithm.get("ContainerArguments") or (() if "ContainerEntrypoint" in algorithm else ("train",)),
            environment={
                "TRAINING_JOB_NAME": self.name,
                "TRAINING_JOB_ARN": self.context.arn("training-job", self.name),
                "AWS_REGION": self.context.region,
                **self.request.get("Environment", {}),
            },
            network=network,
            host=host,
            hosts=self._hosts,
            on_line=on_line,
        )

    def _checkpoints(self, root: Path) -> Path:
        return inside(root, self.request["CheckpointConfig"].get("LocalPath", "/opt/ml/checkpoints"))

    def _save_checkpoints(self) -> None:
        if "CheckpointConfig" in self.request:
            folders = [self._checkpoints(self._folder / host) for host in self._hosts]
            self._store.mirror(folders, self.request["CheckpointConfig"]["S3Uri"], self._key)

    @property
    def _limit(self) -> float:
        return float(self.request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", _DAY_S))

    @property
    def _key(self) -> str:
        return str(self.request["OutputDataConfig"].get("KmsKeyId", ""))

    def _judge(self, outcome: Outcome) -> None:
        file = self._folder / self._hosts[outcome.host] / "output" / "failure"
        check_outcome(outcome, self._limit, file.read_text(errors="replace") if file.is_file() else "")

    def _upload(self) -> str:
        """Put model.tar.gz (and output.tar.gz when there is any output) beside each other; return the first's URI."""
        target = f"{self.request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"
        for part, archive in (("output/data", "output.tar.gz"), ("model", "model.tar.gz")):
            folders = [self._folder / host / part for host in self._hosts]
            if part == "model" or any(any(folder.iterdir()) for folder in folders):
                pack(folders, self._folder / archive)
                self._store.put(self._folder / archive, f"{target}/{archive}", self._key)
        return f"{target}/model.tar.gz"

    def _properties(self, model: str) -> dict[str, Any]:
        final = [{"MetricName": name, "Value": value} for name, value in self._watch.final.items()]
        return {
            **self.request,
            "TrainingJobName": self.name,
            "TrainingJobArn": self.context.arn("training-job", self.name),
            "TrainingJobStatus": "Completed",
            "ModelArtifacts": {"S3ModelArtifacts": model},
            "FinalMetricDataList": final,
        }


class _Interruption:
    """Takes the spot instance away after the first metric: in the middle, and after something was learned."""

    def __init__(self, context: Context, spot: bool) -> None:
        self._context = context
        self._armed = spot and context.interruptions > 0
        self._due = False

    def metric(self) -> None:
        self._due = self._armed

    def due(self) -> bool:
        if self._due and self._armed:
            self._armed = False
            self._context.interruptions -= 1
            return True
        return False


def resource_config(instance_type: str, hosts: Sequence[str], host: str, interface: str = "lo") -> dict[str, Any]:
    """resourceconfig.json of `host`."""
    group = "homogeneousCluster"
    return {
        "current_host": host,
        "current_instance_type": instance_type,
        "current_group_name": group,
        "hosts": [*hosts],
        "instance_groups": [{"instance_group_name": group, "instance_type": instance_type, "hosts": [*hosts]}],
        "network_interface_name": interface,
    }


def write_config(folder: Path, files: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1))


def inside(root: Path, path: str) -> Path:
    """Where a container's /opt/ml/... lies on this machine."""
    if not path.startswith(f"{_OPT_ML}/") or ".." in path:
        raise JobFailed(f"ClientError: the path {path!r} must lie under {_OPT_ML}/.")
    return root / path.removeprefix(f"{_OPT_ML}/")


def check_outcome(outcome: Outcome, limit_s: float, written: str) -> None:
    """Raise JobFailed unless the job ended by itself and well; `written`: what it said of its failure."""
    if outcome.ended_by == "timeout":
        raise JobFailed(f"MaxRuntimeExceeded: the job was stopped after its {limit_s:g} s (MaxRuntimeInSeconds).")
    if outcome.ended_by == "stop":
        raise JobFailed("Stopped: the pipeline execution was stopped.")
    if outcome.code:
        reason = written.strip()[:1024] or "the program gave no reason; its log ends with:\n" + outcome.log[-1500:]
        raise JobFailed(f"AlgorithmError: {reason} (exit code {outcome.code})")
