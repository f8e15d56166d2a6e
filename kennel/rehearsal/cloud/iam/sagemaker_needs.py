"""What a call to SageMaker needs: its ARN, the roles that it passes on, and the condition keys of jobs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kennel.rehearsal.cloud.clients import ACCOUNT, REGION
from kennel.rehearsal.cloud.iam.policy import Context
from kennel.rehearsal.cloud.request import Call


@dataclass(frozen=True)
class Need:
    """`resource` None: which resources the action touches is not known here, any of the policy's will do."""

    action: str
    resource: str | None
    context: Context = field(default_factory=dict)


_PATHS = {
    "EndpointConfig": "endpoint-config",
    "Endpoint": "endpoint",
    "ModelPackageGroup": "model-package-group",
    "ModelPackage": "model-package",
    "Model": "model",
    "Pipeline": "pipeline",
    "TrainingJob": "training-job",
    "ProcessingJob": "processing-job",
    "HyperParameterTuningJob": "hyper-parameter-tuning-job",
    "NotebookInstanceLifecycleConfig": "notebook-instance-lifecycle-config",
    "NotebookInstance": "notebook-instance",
}


def sagemaker(call: Call) -> Iterator[Need]:
    context = _sagemaker_keys(call.parameters)
    yield Need(f"sagemaker:{call.operation}", _sagemaker_resource(call), context)
    if call.parameters.get("Tags") and call.operation.startswith("Create"):
        yield Need("sagemaker:AddTags", _sagemaker_resource(call), context)
    if call.operation.startswith(("Create", "Update")):
        for role in _roles(call.parameters):
            yield Need("iam:PassRole", role, {"iam:PassedToService": "sagemaker.amazonaws.com"})


def _sagemaker_resource(call: Call) -> str | None:
    asked = call.parameters
    for name in ("PipelineExecutionArn", "ModelPackageArn", "ResourceArn"):
        if name in asked:
            return str(asked[name])
    if call.operation == "CreateModelPackage":  # the version's number is not known yet
        return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/{asked['ModelPackageGroupName'].lower()}/*"
    noun = re.sub(r"^(Create|Describe|Update|Delete|Stop|Start|List)", "", call.operation)
    for name, path in _PATHS.items():
        if noun.startswith(name) and f"{name}Name" in asked:
            value = str(asked[f"{name}Name"])
            return value if value.startswith("arn:") else f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{path}/{value.lower()}"
    return "*" if call.operation.startswith("List") else None


def _roles(parameters: Any) -> set[str]:
    """Every role that the request hands to SageMaker."""
    if isinstance(parameters, list):
        return {role for one in parameters for role in _roles(one)}
    if not isinstance(parameters, dict):
        return set()
    own = {value for key, value in parameters.items() if key in ("RoleArn", "ExecutionRoleArn")}
    return own | {role for value in parameters.values() for role in _roles(value)}


# condition key: where the request says it; a list collects (multivalued keys)
_KEYS: dict[str, list[tuple[str, ...]]] = {
    "sagemaker:InstanceTypes": [("ResourceConfig", "InstanceType"), ("ClusterConfig", "InstanceType")],
    "sagemaker:NetworkIsolation": [("EnableNetworkIsolation",), ("NetworkConfig", "EnableNetworkIsolation")],
    "sagemaker:InterContainerTrafficEncryption": [
        ("EnableInterContainerTrafficEncryption",),
        ("NetworkConfig", "EnableInterContainerTrafficEncryption"),
    ],
    "sagemaker:VolumeKmsKey": [
        ("ResourceConfig", "VolumeKmsKeyId"),
        ("ClusterConfig", "VolumeKmsKeyId"),
        ("KmsKeyId",),
    ],
    "sagemaker:OutputKmsKey": [("OutputDataConfig", "KmsKeyId"), ("ProcessingOutputConfig", "KmsKeyId")],
    "sagemaker:MaxRuntimeInSeconds": [("StoppingCondition", "MaxRuntimeInSeconds")],
    "sagemaker:VpcSubnets": [("VpcConfig", "Subnets"), ("NetworkConfig", "VpcConfig", "Subnets")],
    "sagemaker:VpcSecurityGroupIds": [
        ("VpcConfig", "SecurityGroupIds"),
        ("NetworkConfig", "VpcConfig", "SecurityGroupIds"),
    ],
    "sagemaker:ModelApprovalStatus": [("ModelApprovalStatus",)],
}
# The job's request lies one level down.
_INSIDE = ("ProcessingResources", "TrainingJobDefinition")


def _sagemaker_keys(parameters: dict[str, Any]) -> dict[str, str | list[str]]:
    layers = [parameters, *(parameters[name] for name in _INSIDE if isinstance(parameters.get(name), dict))]
    found: dict[str, str | list[str]] = {}
    for key, paths in _KEYS.items():
        for layer in layers:
            for path in paths:
                value = _dig(layer, path)
                if value is not None:
                    found[key] = [str(one) for one in value] if isinstance(value, list) else _plain(value)
    for variant in parameters.get("ProductionVariants", []):
        if "InstanceType" in variant:
            found["sagemaker:InstanceTypes"] = [variant["InstanceType"]]
    return found


def _dig(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
