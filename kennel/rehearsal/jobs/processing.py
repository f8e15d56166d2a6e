"""CreateProcessingJob: inputs, the entry point, outputs."""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kennel.rehearsal.containers import Container
from kennel.rehearsal.jobs.context import Context
from kennel.rehearsal.jobs.contract import check_outcome, path_on_machine, resource_config, run_hosts, write_config
from kennel.rehearsal.jobs.store import Store

_DAY_S = 86_400


def run_processing(context: Context, step: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """Run one job; return the answer of DescribeProcessingJob and the step's PropertyFiles. Raise JobFailed."""
    name = context.job_name(step["Name"])
    context.create("create_processing_job", {"ProcessingJobName": name, **request})
    folder = context.work / context.execution.id / name
    store = context.store(request["RoleArn"])
    cluster = request["ProcessingResources"]["ClusterConfig"]
    hosts = [f"algo-{number}" for number in range(1, int(cluster.get("InstanceCount", 1)) + 1)]
    roots = {host: folder / host for host in hosts}
    try:
        for index, (host, root) in enumerate(roots.items()):
            _prepare(store, request, root, index, len(hosts))
            resources = resource_config(cluster["InstanceType"], hosts, host)
            config = {"resourceconfig": resources, "processingjobconfig": {**request, "ProcessingJobName": name}}
            write_config(root / "config", config)
        _run(context, name, request, roots)
        key = request.get("ProcessingOutputConfig", {}).get("KmsKeyId", "")
        for root in roots.values():
            for target in _outputs(request).values():
                store.upload(path_on_machine(root, target["LocalPath"]), target["S3Uri"], key)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        **request,
        "ProcessingJobName": name,
        "ProcessingJobArn": context.arn("processing-job", name),
        "ProcessingJobStatus": "Completed",
        "PropertyFiles": [_property_file(file, request) for file in step.get("PropertyFiles", [])],
    }


def _prepare(store: Store, request: Mapping[str, Any], root: Path, index: int, hosts: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for item in request.get("ProcessingInputs", []):
        source = item["S3Input"]
        store.download_source(source, path_on_machine(root, source["LocalPath"]), index, hosts)
    for target in _outputs(request).values():
        path_on_machine(root, target["LocalPath"]).mkdir(parents=True, exist_ok=True)


def _run(context: Context, name: str, request: Mapping[str, Any], roots: Mapping[str, Path]) -> None:
    specification = request["AppSpecification"]
    limit_s = request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", _DAY_S)
    environment = {"PROCESSING_JOB_NAME": name, "AWS_REGION": context.region, **request.get("Environment", {})}
    with context.log("ProcessingJobs", name, request["RoleArn"]) as log, context.engine.network() as network:
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
                on_line=partial(log.write, host=host),
            )
            for host, root in roots.items()
        ]
        outcome = run_hosts(context.engine, containers, limit_s=limit_s, stopped=lambda: context.stopping)
    check_outcome(outcome, limit_s, [root / "output" / "message" for root in roots.values()])


def _outputs(request: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    outputs = request.get("ProcessingOutputConfig", {}).get("Outputs", [])
    return {item["OutputName"]: item["S3Output"] for item in outputs}


def _property_file(file: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    base = _outputs(request)[file["OutputName"]]["S3Uri"]
    return {**file, "S3Uri": f"{base.rstrip('/')}/{file['FilePath']}"}
