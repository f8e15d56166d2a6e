"""CreateTrainingJob: hosts, channels, checkpoints, spot, the artifact."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kennel.rehearsal.containers import Container, Network
from kennel.rehearsal.jobs.checkpoints import Checkpoints, SpotInterruption
from kennel.rehearsal.jobs.context import Context, JobLog
from kennel.rehearsal.jobs.contract import (
    Outcome,
    check_outcome,
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

    def _container(self, host: str, network: Network, interruption: SpotInterruption) -> Container:
        def on_line(text: str) -> None:
            if self._log.write(text, host):
                interruption.metric()

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
