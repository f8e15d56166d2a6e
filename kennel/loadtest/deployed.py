"""A stage's endpoint, and what AWS knows of it."""

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from kennel.aws import output, plainly
from kennel.errors import KennelError
from kennel.loadtest.machine import describe
from kennel.loadtest.subject import Subject


def deployed(stage: str, client: Callable[[str], Any]) -> Subject:
    """The endpoint of `stage`; `client` makes a boto3 client of a service. Raises KennelError where none answers."""
    name, sagemaker = output(stage, "Hosting", "EndpointName"), client("sagemaker")
    with plainly():
        endpoint = _endpoint(sagemaker, name, stage)
        config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        variant = config["ProductionVariants"][0]
        container = sagemaker.describe_model(ModelName=variant["ModelName"])["PrimaryContainer"]
        model = _model(sagemaker, container.get("ModelPackageName", ""))
    environment = container.get("Environment", {})
    here = _is_here()
    return Subject(
        instance_type="" if here else variant["InstanceType"],
        machine=f"{describe()}, rehearsed" if here else f"{variant['InstanceType']} in {sagemaker.meta.region_name}",
        model=model,
        runtime=environment.get("RUNTIME", "openvino"),
        precision=environment.get("PRECISION", "auto"),
        endpoint=name,
        # Rehearsed instances share this machine's cores: together they are one.
        instances=1 if here else int(endpoint["ProductionVariants"][0]["CurrentInstanceCount"]),
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
    told = sagemaker.describe_model_package(ModelPackageName=package).get("CustomerMetadataProperties", {})
    size = told.get("image_size", "")
    return {
        "architecture": told.get("model", ""),
        "image_size": int(size) if size.isdigit() else None,
        "passport_sha256": told.get("passport_sha256", ""),
        "package": package,
    }


def _is_here() -> bool:
    """Whether a rehearsal plays AWS: what it serves, this machine computes."""
    host = urlsplit(os.environ.get("AWS_ENDPOINT_URL", "")).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
