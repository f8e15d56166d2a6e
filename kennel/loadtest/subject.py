"""What a load test measures: an endpoint or a server, and the machine that answers."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kennel.aws import Client, aws_errors, output
from kennel.errors import KennelError

_VECTOR_UNITS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
)  # those that decide speed


@dataclass(frozen=True)
class Subject:
    """Requests go to `url` or else to `endpoint`. `instance_type` is empty where no SageMaker instance answers.

    `model` has `architecture`, `image_size` (pixels; None: unknown) and what identifies it.
    """

    instance_type: str
    machine: str
    model: dict[str, Any]
    runtime: str
    precision: str
    url: str = ""
    endpoint: str = ""
    instances: int = 1


def describe_machine() -> str:
    """Return the cores that this process may use, the processor with its vector units, and the memory in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(os.sched_getaffinity(0))} cores of {_processor()}, {memory:.0f} GiB"


def _processor(file: Path = Path("/proc/cpuinfo")) -> str:
    entries: dict[str, str] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        name, _, value = line.partition(":")
        entries.setdefault(name.strip(), value.strip())
    units = [unit for unit in _VECTOR_UNITS if unit in entries.get("flags", "").split()]
    return entries.get("model name", platform.machine()) + (f" ({', '.join(units)})" if units else "")


def deployed(stage: str, client: Client) -> Subject:
    """Return the endpoint of `stage`, or raise KennelError where none answers.

    `client` makes a boto3 client of a service.
    """
    name, sagemaker = output(stage, "Hosting", "EndpointName"), client("sagemaker")
    with aws_errors():
        endpoint = _endpoint(sagemaker, name, stage)
        config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        variant = config["ProductionVariants"][0]
        container = sagemaker.describe_model(ModelName=variant["ModelName"])["PrimaryContainer"]
        model = _model(sagemaker, container.get("ModelPackageName", ""))
    environment = container.get("Environment", {})
    rehearsed = _is_rehearsed()
    machine = (
        f"{describe_machine()}, rehearsed"
        if rehearsed
        else f"{variant['InstanceType']} in {sagemaker.meta.region_name}"
    )
    return Subject(
        instance_type="" if rehearsed else variant["InstanceType"],
        machine=machine,
        model=model,
        runtime=environment.get("RUNTIME", "openvino"),
        precision=environment.get("PRECISION", "auto"),
        endpoint=name,
        # Rehearsed instances share this machine's cores: together they are one.
        instances=1 if rehearsed else int(endpoint["ProductionVariants"][0]["CurrentInstanceCount"]),
    )


def _endpoint(sagemaker: Any, name: str, stage: str) -> dict[str, Any]:
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    try:
        found: dict[str, Any] = sagemaker.describe_endpoint(EndpointName=name)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "ValidationException":
            raise
        raise KennelError(
            f"There is no endpoint {name} yet: release a model first (`kennel status --stage {stage}`)."
        ) from error
    if found["EndpointStatus"] != "InService":
        raise KennelError(f"The endpoint {name} is {found['EndpointStatus']}: measure it when it is InService.")
    return found


def _model(sagemaker: Any, package: str) -> dict[str, Any]:
    if not package:
        return {"architecture": "", "image_size": None}
    metadata = sagemaker.describe_model_package(ModelPackageName=package).get("CustomerMetadataProperties", {})
    size = metadata.get("image_size", "")
    return {
        "architecture": metadata.get("model", ""),
        "image_size": int(size) if size.isdigit() else None,
        "passport_sha256": metadata.get("passport_sha256", ""),
        "package": package,
    }


def _is_rehearsed() -> bool:
    """Return whether AWS is the rehearsal's embedded one, whose endpoints this machine computes."""
    host = urlsplit(os.environ.get("AWS_ENDPOINT_URL", "")).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
