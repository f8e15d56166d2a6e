"""CreateProcessingJob: inputs, the entry point, outputs."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kennel.rehearsal.containers.engine import Container
from kennel.rehearsal.jobs.context import Context
from kennel.rehearsal.jobs.contract import (
    DAY_S,
    JobFailed,
    check_outcome,
    path_on_machine,
    resource_config,
    run_hosts,
    write_config,
)
from kennel.rehearsal.jobs.store import Store

_HOST = "algo-1"


def run_processing(context: Context, name: str, step: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """Run one job; return the request with the step's PropertyFiles. Raise JobFailed."""
    context.create("create_processing_job", {"ProcessingJobName": name, **request})
    folder = context.work / context.execution.id / name
    root, store = folder / _HOST, context.store(request["RoleArn"])
    cluster = request["ProcessingResources"]["ClusterConfig"]
    if cluster["InstanceCount"] != 1:
        raise JobFailed("Processing jobs on several instances cannot be rehearsed; training jobs can.")
    try:
        _prepare(store, request, root)
        resources = resource_config(cluster["InstanceType"], [_HOST], _HOST)
        write_config(root / "config", {"resourceconfig": resources})
        _run(context, name, request, root)
        key = request.get("ProcessingOutputConfig", {}).get("KmsKeyId", "")
        for target in _outputs(request).values():
            store.upload(path_on_machine(root, target["LocalPath"]), target["S3Uri"], key)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    files = [_property_file(file, request) for file in step.get("PropertyFiles", [])]
    return {**request, "ProcessingJobName": name, "PropertyFiles": files}


def _prepare(store: Store, request: Mapping[str, Any], root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for item in request.get("ProcessingInputs", []):
        store.download_source(item["S3Input"], path_on_machine(root, item["S3Input"]["LocalPath"]))
    for target in _outputs(request).values():
        path_on_machine(root, target["LocalPath"]).mkdir(parents=True, exist_ok=True)


def _run(context: Context, name: str, request: Mapping[str, Any], root: Path) -> None:
    specification = request["AppSpecification"]
    limit_s = request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", DAY_S)
    with context.log("ProcessingJobs", name, request["RoleArn"]) as log, context.engine.network() as network:
        container = Container(
            program="training",
            root=root,
            image=specification["ImageUri"],
            entrypoint=specification.get("ContainerEntrypoint", ()),
            arguments=[str(argument) for argument in specification.get("ContainerArguments", ())],
            environment={"PROCESSING_JOB_NAME": name, "AWS_REGION": context.region, **request.get("Environment", {})},
            network=network,
            on_line=log.write,
        )
        outcome = run_hosts(context.engine, [container], limit_s=limit_s, stopped=lambda: context.stopping)
    check_outcome(outcome, limit_s, [root / "output" / "message"])


def _outputs(request: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    outputs = request.get("ProcessingOutputConfig", {}).get("Outputs", [])
    return {item["OutputName"]: item["S3Output"] for item in outputs}


def _property_file(file: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    base = _outputs(request)[file["OutputName"]]["S3Uri"]
    return {**file, "S3Uri": f"{base.rstrip('/')}/{file['FilePath']}"}
