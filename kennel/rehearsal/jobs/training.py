"""Training jobs: hosts, channels, checkpoints and the spot interruption that they survive; and tuning, many of them."""

import hashlib
import math
import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kennel.rehearsal.containers.engine import Container, Network
from kennel.rehearsal.jobs.context import Context
from kennel.rehearsal.jobs.contract import (
    DAY_S,
    JobFailed,
    Outcome,
    check_outcome,
    path_on_machine,
    resource_config,
    run_hosts,
    write_config,
)
from kennel.rehearsal.jobs.language import DefinitionError
from kennel.rehearsal.jobs.store import Store, pack

TUNING_NAME_LENGTH = 32  # characters of a tuning job's name, SageMaker's limit
_FOLDERS = ("input/config", "input/data", "model", "output/data", "checkpoints", "tmp")


@dataclass
class TrainingJob:
    """One training job. `request` is CreateTrainingJob's without the name; all its values are resolved."""

    context: Context
    name: str
    request: Mapping[str, Any]

    def __post_init__(self) -> None:
        role, resources = self.request["RoleArn"], self.request["ResourceConfig"]
        self._store = self.context.store(role)
        self._log = self.context.log("TrainingJobs", self.name, role)
        self._log.metrics = self.request["AlgorithmSpecification"].get("MetricDefinitions", [])
        self._folder = self.context.work / self.context.execution.id / self.name
        self._hosts = [f"algo-{number}" for number in range(1, int(resources.get("InstanceCount", 1)) + 1)]
        self._roots = [self._folder / host for host in self._hosts]
        self._limit_s = float(self.request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", DAY_S))
        self._key = str(self.request["OutputDataConfig"].get("KmsKeyId", ""))
        kept = self.request.get("CheckpointConfig")
        self._checkpoints = Checkpoints(self._store, kept, self._key) if kept else None

    def run(self) -> dict[str, Any]:
        """Return what steps may name of DescribeTrainingJob's answer; raise JobFailed with the job's own reason."""
        try:
            with self._log:
                outcome = self._attempt()
                if outcome.ended_by == "interruption":
                    self._log.write("The spot instance was taken away: SIGTERM; starting again from the checkpoint.")
                    outcome = self._attempt()
            check_outcome(outcome, self._limit_s, [root / "output" / "failure" for root in self._roots])
            return {
                **self.request,
                "TrainingJobName": self.name,
                "ModelArtifacts": {"S3ModelArtifacts": self._upload()},
                "FinalMetricDataList": [
                    {"MetricName": name, "Value": value} for name, value in self._log.final.items()
                ],
            }
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _attempt(self) -> Outcome:
        """Run the job once on new instances, with its checkpoints from S3 before and to S3 afterwards."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with self.context.engine.network() as network:
            for host, root in zip(self._hosts, self._roots, strict=True):
                self._prepare(host, root, network)
            if self._checkpoints:
                self._checkpoints.download(self._roots)
            outcome = run_hosts(
                self.context.engine,
                [self._container(host, network) for host in self._hosts],
                limit_s=self._limit_s,
                interrupted=self._is_interrupted,
                stopped=lambda: self.context.stopping,
            )
        if self._checkpoints:
            self._checkpoints.upload(self._roots)
        return outcome

    def _is_interrupted(self) -> bool:
        """Return true once, when a spot instance is to be taken away: after the first metric or checkpoint."""
        if not (self.context.interrupt_spot and self.request.get("EnableManagedSpotTraining")):
            return False
        due = bool(self._log.final or (self._checkpoints and self._checkpoints.has_new(self._roots)))
        self.context.interrupt_spot = not due
        return due

    def _prepare(self, host: str, root: Path, network: Network) -> None:
        for folder in _FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        channels = {one["ChannelName"]: one["DataSource"] for one in self.request.get("InputDataConfig", [])}
        instance_type = self.request["ResourceConfig"]["InstanceType"]
        config = {
            "hyperparameters": {name: str(value) for name, value in self.request.get("HyperParameters", {}).items()},
            "inputdataconfig": {name: {"TrainingInputMode": "File"} for name in channels},
            "resourceconfig": resource_config(instance_type, self._hosts, host, network.interface),
        }
        write_config(root / "input" / "config", config)
        for name, source in channels.items():
            self._store.download_source(source["S3DataSource"], root / "input" / "data" / name)

    def _container(self, host: str, network: Network) -> Container:
        algorithm = self.request["AlgorithmSpecification"]
        # Without a share of the cores, OpenMP's threads of one host would spin while those of another displace them.
        cores = max(1, (os.cpu_count() or 1) // len(self._hosts))
        return Container(
            program="training",
            root=self._folder / host,
            image=algorithm.get("TrainingImage", ""),
            entrypoint=algorithm.get("ContainerEntrypoint", ()),
            arguments=() if "ContainerEntrypoint" in algorithm else ("train",),
            environment={
                "TRAINING_JOB_NAME": self.name,
                "TRAINING_JOB_ARN": self.context.arn("training-job", self.name),
                "AWS_REGION": self.context.region,
                **({"OMP_NUM_THREADS": str(cores)} if len(self._hosts) > 1 else {}),
                **self.request.get("Environment", {}),
            },
            network=network,
            host=host,
            hosts=self._hosts,
            on_line=lambda text: self._log.write(text, host),
        )

    def _upload(self) -> str:
        """Upload model.tar.gz, and output.tar.gz when there is any output; return the URI of the first."""
        target = f"{self.request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"
        for part, archive in (("output/data", "output.tar.gz"), ("model", "model.tar.gz")):
            folders = [root / part for root in self._roots]
            if part == "model" or any(any(folder.iterdir()) for folder in folders):
                pack(folders, self._folder / archive)
                self._store.put(self._folder / archive, f"{target}/{archive}", self._key)
        return f"{target}/model.tar.gz"


class Checkpoints:
    """The folder of checkpoints that all hosts of a job share with the S3Uri of its CheckpointConfig.

    `roots` are the hosts' /opt/ml. Other jobs may write to the same S3Uri meanwhile: objects that this job has not
    downloaded stay as they are.
    """

    def __init__(self, store: Store, config: Mapping[str, str], key_id: str) -> None:
        self._store, self._uri, self._key = store, config["S3Uri"].rstrip("/"), key_id
        self._path = config.get("LocalPath", "/opt/ml/checkpoints")
        self._downloaded: set[str] = set()

    def download(self, roots: Sequence[Path]) -> None:
        """Copy what is in S3 into the folder of each host."""
        for root in roots:
            self._store.download_if_any(self._uri, path_on_machine(root, self._path))
        self._downloaded = self._files(roots)

    def has_new(self, roots: Sequence[Path]) -> bool:
        """Return whether a host has written a whole file since the download."""
        return any(not name.endswith(".partial") for name in self._files(roots) - self._downloaded)

    def upload(self, roots: Sequence[Path]) -> None:
        """Copy all files to S3, and delete there those that were downloaded and are gone from every host."""
        for root in roots:
            self._store.upload(path_on_machine(root, self._path), self._uri, self._key)
        for name in sorted(self._downloaded - self._files(roots)):
            self._store.delete(f"{self._uri}/{name}")

    def _files(self, roots: Sequence[Path]) -> set[str]:
        folders = [path_on_machine(root, self._path) for root in roots]
        found = ((folder, path) for folder in folders for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix() for folder, path in found}


def run_tuning(context: Context, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run a tuning job's trials, a training job each, one after the other; the best becomes the step's property.

    Raise JobFailed when none reports a value of the objective.
    """
    config, definition = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
    context.create("create_hyper_parameter_tuning_job", {"HyperParameterTuningJobName": name, **request})
    generator = random.Random(config["RandomSeed"])
    summaries: list[dict[str, Any]] = []
    context.record(context.arn("hyper-parameter-tuning-job", name), TrainingJobSummaries=summaries)
    for number in range(1, int(config["ResourceLimits"]["MaxNumberOfTrainingJobs"]) + 1):
        suffix = hashlib.sha256(f"{name}/{number}".encode()).hexdigest()[:8]
        trial, now = f"{name}-{number:03d}-{suffix}", datetime.now(UTC)
        summaries.append(
            {
                "TrainingJobName": trial,
                "TrainingJobArn": context.arn("training-job", trial),
                "TrainingJobStatus": "InProgress",
                "TunedHyperParameters": dict(_sample(config["ParameterRanges"], generator)),
                "CreationTime": now,
                "TrainingStartTime": now,
            }
        )
        ended = _trial(context, summaries[-1], definition, config["HyperParameterTuningJobObjective"])
        summaries[-1] = {**summaries[-1], **ended, "TrainingEndTime": datetime.now(UTC)}
    best = _best(summaries, config["HyperParameterTuningJobObjective"]["Type"])
    return {**request, "HyperParameterTuningJobName": name, "BestTrainingJob": best}


def _sample(ranges: Mapping[str, Any], generator: random.Random) -> Iterator[tuple[str, str]]:
    """Yield (name, value) for each parameter; values are strings, as SageMaker passes them."""
    if others := sorted(set(ranges) - {"ContinuousParameterRanges"}):
        raise DefinitionError(f"{', '.join(others)} cannot be rehearsed; ContinuousParameterRanges can.")
    for one in ranges["ContinuousParameterRanges"]:
        low, high = float(one["MinValue"]), float(one["MaxValue"])
        if one["ScalingType"] == "Logarithmic":
            value = math.exp(generator.uniform(math.log(low), math.log(high)))
        elif one["ScalingType"] == "Linear":
            value = generator.uniform(low, high)
        else:
            raise DefinitionError(f"{one['ScalingType']} scaling cannot be rehearsed; Linear and Logarithmic can.")
        yield one["Name"], f"{value:.8g}"


def _trial(
    context: Context, summary: Mapping[str, Any], definition: Mapping[str, Any], objective: Mapping[str, str]
) -> dict[str, Any]:
    """Run one trial; return what is new in its summary."""
    parameters = {
        **definition.get("StaticHyperParameters", {}),
        **summary["TunedHyperParameters"],
        "_tuning_objective_metric": objective["MetricName"],
    }
    try:
        job = TrainingJob(context, summary["TrainingJobName"], {**definition, "HyperParameters": parameters})
        done = job.run()
    except JobFailed as error:
        if context.stopping:
            raise
        return {"TrainingJobStatus": "Failed", "FailureReason": str(error)}
    values = {item["MetricName"]: item["Value"] for item in done["FinalMetricDataList"]}
    final = {**objective, "Value": values.get(objective["MetricName"], math.nan)}
    return {"TrainingJobStatus": "Completed", "FinalHyperParameterTuningJobObjectiveMetric": final}


def _best(summaries: Sequence[Mapping[str, Any]], direction: str) -> Mapping[str, Any]:
    def value(summary: Mapping[str, Any]) -> float:
        return float(summary.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value", math.nan))

    rated = [summary for summary in summaries if not math.isnan(value(summary))]
    if not rated:
        reasons = [summary["FailureReason"] for summary in summaries if "FailureReason" in summary]
        raise JobFailed(f"No trial reported the objective. {reasons[0] if reasons else ''}".strip())
    return max(rated, key=value) if direction == "Maximize" else min(rated, key=value)
