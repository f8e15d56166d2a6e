"""CreateProcessingJob: inputs, the entry point, outputs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kennel.rehearsal.containers import Container
from kennel.rehearsal.jobs.context import Context
from kennel.rehearsal.jobs.contract import check_outcome, inside, resource_config, write_config
from kennel.rehearsal.jobs.hosts import run_hosts
from kennel.rehearsal.jobs.store import Store

_DAY_S = 86_400


def run_processing(context: Context, step: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """Run one job; return what DescribeProcessingJob would, and the step's PropertyFiles. Raises JobFailed."""
    name = context.job_name(step["Name"])
    context.create("create_processing_job", {"ProcessingJobName": name, **request})
    folder = context.work / context.execution.id / name
    store = context.store(request["RoleArn"])
    cluster = request["ProcessingResources"]["ClusterConfig"]
    hosts = [f"algo-{number}" for number in range(1, int(cluster.get("InstanceCount", 1)) + 1)]
    try:
        for place, host in enumerate(hosts):
            _prepare(store, request, folder / host, (place, len(hosts)))
            resources = resource_config(cluster["InstanceType"], hosts, host)
            config = {"resourceconfig": resources, "processingjobconfig": {**request, "ProcessingJobName": name}}
            write_config(folder / host / "config", config)
        _run(context, step["Name"], name, request, {host: folder / host for host in hosts})
        for host in hosts:
            _upload(store, request, folder / host)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        **request,
        "ProcessingJobName": name,
        "ProcessingJobArn": context.arn("processing-job", name),
        "ProcessingJobStatus": "Completed",
        "PropertyFiles": [_property_file(file, request) for file in step.get("PropertyFiles", [])],
    }


def _prepare(store: Store, request: Mapping[str, Any], root: Path, place: tuple[int, int]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for item in request.get("ProcessingInputs", []):
        source = item["S3Input"]
        part = place if source.get("S3DataDistributionType") == "ShardedByS3Key" else (0, 1)
        store.fetch(source["S3Uri"], source.get("S3DataType", "S3Prefix"), inside(root, source["LocalPath"]), part)
    for target in _outputs(request):
        inside(root, target["LocalPath"]).mkdir(parents=True, exist_ok=True)


def _run(context: Context, step: str, name: str, request: Mapping[str, Any], roots: Mapping[str, Path]) -> None:
    specification = request["AppSpecification"]
    watch = context.watch(step)
    limit = request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", _DAY_S)
    environment = {"PROCESSING_JOB_NAME": name, "AWS_REGION": context.region, **request.get("Environment", {})}
    with context.logs("ProcessingJobs", name, request["RoleArn"]) as watch.log, context.engine.network() as network:
        containers = [
            Container(
                program="training",
                root=root,
                entrypoint=specification.get("ContainerEntrypoint", ()),
                arguments=[str(argument) for argument in specification.get("ContainerArguments", ())],
                environment=environment,
                network=network,
                host=host,
                hosts=[*roots],
                on_line=partial(watch.line, host=host if len(roots) > 1 else ""),
            )
            for host, root in roots.items()
        ]
        outcome = run_hosts(context.engine, containers, limit_s=limit, stopped=lambda: context.stopping)
    message = [*roots.values()][outcome.host] / "output" / "message"
    check_outcome(outcome, limit, message.read_text(errors="replace") if message.is_file() else "")


def _outputs(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [item["S3Output"] for item in request.get("ProcessingOutputConfig", {}).get("Outputs", [])]


def _upload(store: Store, request: Mapping[str, Any], root: Path) -> None:
    key = request.get("ProcessingOutputConfig", {}).get("KmsKeyId", "")
    for target in _outputs(request):
        store.upload(inside(root, target["LocalPath"]), target["S3Uri"], key)


def _property_file(file: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    outputs = request.get("ProcessingOutputConfig", {}).get("Outputs", [])
    base = next(item["S3Output"]["S3Uri"] for item in outputs if item["OutputName"] == file["OutputName"])
    return {**file, "S3Uri": f"{base.rstrip('/')}/{file['FilePath']}"}
