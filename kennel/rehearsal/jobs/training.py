"""CreateTrainingJob: hosts, channels, checkpoints, spot, the artifact."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kennel.rehearsal.containers import Container, Network
from kennel.rehearsal.jobs.checkpoints import Checkpoints
from kennel.rehearsal.jobs.context import Context, Watch
from kennel.rehearsal.jobs.contract import check_outcome, core_share, resource_config, write_config
from kennel.rehearsal.jobs.hosts import Outcome, run_hosts
from kennel.rehearsal.jobs.spot import Interruption
from kennel.rehearsal.jobs.store import Store, pack

_DAY_S = 86_400
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
        roots, checkpoints = [self._folder / host for host in self._hosts], self._checkpoints()
        saved = partial(checkpoints.grown, roots) if checkpoints else lambda: False
        seen = Interruption(self.context, bool(self.request.get("EnableManagedSpotTraining")), saved)
        log = self.context.logs("TrainingJobs", self.name, self.request["RoleArn"])
        with log as self._watch.log, self.context.engine.network() as network:
            for place, root in enumerate(roots):
                self._prepare(place, root, network)
                if checkpoints:
                    checkpoints.bring(root)
            outcome = run_hosts(
                self.context.engine,
                [self._container(host, network, seen) for host in self._hosts],
                limit_s=self._limit,
                interrupted=seen.due,
                stopped=lambda: self.context.stopping,
            )
        if checkpoints:
            checkpoints.keep(roots)
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

    def _container(self, host: str, network: Network, seen: Interruption) -> Container:
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
                **core_share(len(self._hosts)),
                **self.request.get("Environment", {}),
            },
            network=network,
            host=host,
            hosts=self._hosts,
            on_line=on_line,
        )

    def _checkpoints(self) -> Checkpoints | None:
        config = self.request.get("CheckpointConfig")
        return Checkpoints(self._store, config, self._key) if config else None

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
