"""Pipelines whose containers run programs of a few lines, over an S3 in this process."""

import io
import tarfile
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]

from kennel.rehearsal.containers.engine import Container, Process
from kennel.rehearsal.containers.local import pick_engine
from kennel.rehearsal.interfaces import PipelineExecution
from kennel.rehearsal.jobs.contract import JobFailed
from kennel.rehearsal.jobs.execution import PipelineRunner

JOB, PIPELINE = "arn:aws:iam::123456789012:role/job", "arn:aws:iam::123456789012:role/pipeline"
EXECUTION = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/ex1"
METRICS = [{"Name": "valid_accuracy", "Regex": "valid_accuracy=([0-9.]+|nan)"}]
HEAD = """
import json, os, pathlib, signal, sys, time
ml = pathlib.Path(os.environ.get("OPT_ML", "/opt/ml"))
config = {f.stem: json.loads(f.read_text()) for f in (ml / "input" / "config").glob("*.json")}
def say(*words): print(*words, flush=True)
"""


class Programmed:
    """The machine's own engine; a container without an entry point of its own runs `script` in place of the image's."""

    def __init__(self, script: str) -> None:
        self._engine, self._script = pick_engine(), HEAD + script
        self.name, self.notice = self._engine.name, self._engine.notice
        self.network, self.build, self.close = self._engine.network, self._engine.build, self._engine.close

    def start(self, container: Container) -> Process:
        if not container.entrypoint:
            assert [*container.arguments] == ["train"]
            container = replace(container, entrypoint=["python3", "-c", self._script], arguments=())
        return self._engine.start(container)


@dataclass
class Pipelines:
    """An S3, the roles that clients were made for, and a runner."""

    work: Path
    s3: Any
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str, role: str | None) -> Any:
        self.asked.append((service, role))
        return self._client(service)

    def _client(self, service: str) -> Any:
        if service not in self.clients:  # half a second for SageMaker's
            self.clients[service] = boto3.client(service, region_name="us-east-1")
        return self.clients[service]

    def runner(self, *, spot: bool = False, program: str = "") -> PipelineRunner:
        return PipelineRunner(client=self.client, work=self.work, containers=Programmed(program), interrupt_spot=spot)

    def execution(self, *steps: dict[str, Any]) -> PipelineExecution:
        return PipelineExecution(
            arn=EXECUTION,
            pipeline_name="p",
            role_arn=PIPELINE,
            definition={"Version": "2020-12-01", "Steps": list(steps)},
            parameters={},
        )

    def run(self, *steps: dict[str, Any], spot: bool = False, program: str = "") -> PipelineExecution:
        execution = self.execution(*steps)
        run(self.runner(spot=spot, program=program), execution)
        return execution

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket="data", Key=key, Body=body)

    def get(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket="data", Key=key)["Body"].read()
        return body

    def keys(self, prefix: str = "") -> list[str]:
        return [item["Key"] for item in self.s3.list_objects_v2(Bucket="data", Prefix=prefix).get("Contents", [])]

    def logs(self) -> list[tuple[str, str]]:
        """(name of the stream without its time, line) of all jobs, from CloudWatch Logs."""
        client, found = self._client("logs"), []
        for group in client.describe_log_groups()["logGroups"]:
            for stream in client.describe_log_streams(logGroupName=group["logGroupName"])["logStreams"]:
                name = stream["logStreamName"]
                place = {"logGroupName": group["logGroupName"], "logStreamName": name, "startFromHead": True}
                found += [(name.rpartition("-")[0], one["message"]) for one in client.get_log_events(**place)["events"]]
        return found

    def lines(self) -> list[str]:
        return [line for _, line in self.logs()]

    def wait_for(self, line: str) -> None:
        while line not in self.lines():
            threading.Event().wait(0.02)

    def artifact(self, key: str) -> dict[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(self.get(key))) as tar:
            files = [(member.name, tar.extractfile(member)) for member in tar]
            return {name: file.read() for name, file in files if file}


def run(runner: PipelineRunner, execution: PipelineExecution) -> None:
    """Run to the end and note how it ended, as the control plane does."""
    try:
        runner.run(execution)
    except JobFailed as error:
        execution.status, execution.failure_reason = "Failed", str(error)
    else:
        execution.status = "Succeeded"


def processing(
    name: str, script: str, inputs: dict[str, Any] | None = None, outputs: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """`inputs` and `outputs`: name -> URI; a tuple adds the S3DataType."""
    sources = [
        {
            "S3Uri": uri if isinstance(uri, str | dict) else uri[0],
            "S3DataType": "S3Prefix" if isinstance(uri, str | dict) else uri[1],
        }
        for uri in (inputs or {}).values()
    ]
    arguments = {
        "AppSpecification": {"ImageUri": "training", "ContainerEntrypoint": ["python3", "-c", HEAD + script]},
        "RoleArn": JOB,
        "ProcessingInputs": [
            {"InputName": key, "S3Input": {**source, "LocalPath": f"/opt/ml/processing/input/{key}"}}
            for key, source in zip(inputs or {}, sources, strict=True)
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": key,
                    "S3Output": {
                        "S3Uri": uri,
                        "LocalPath": f"/opt/ml/processing/output/{key}",
                        "S3UploadMode": "EndOfJob",
                    },
                }
                for key, uri in (outputs or {}).items()
            ]
        },
        "ProcessingResources": {
            "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
    }
    return {"Name": name, "Type": "Processing", "Arguments": arguments, **more}


def training(name: str, script: str, **more: Any) -> dict[str, Any]:
    return {
        "Name": name,
        "Type": "Training",
        "Arguments": {"HyperParameters": {"epochs": "2"}, **learning(script), **more},
    }


def learning(script: str) -> dict[str, Any]:
    return {
        "AlgorithmSpecification": {
            "TrainingImage": "training",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "-c", HEAD + script],
            "MetricDefinitions": METRICS,
        },
        "RoleArn": JOB,
        "OutputDataConfig": {"S3OutputPath": "s3://data/runs"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }
