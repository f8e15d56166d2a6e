"""The permissions that an API call requires: IAM actions, the ARNs they touch, and the request's condition keys."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from moto.cloudformation.models import cloudformation_backends
from moto.s3.models import s3_backends

from kennel.rehearsal.cloud.api import Call
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION
from kennel.rehearsal.cloud.iam.policy import Context


@dataclass(frozen=True)
class RequiredPermission:
    """An action on a resource; None: it is not known here which one, any of the policy's will do."""

    action: str
    resource: str | None
    context: Context = field(default_factory=dict)


def required_permissions(call: Call) -> list[RequiredPermission]:
    """Return everything that must be allowed for `call`."""
    services = {"s3": _s3, "sagemaker": _sagemaker, "sagemaker-runtime": _runtime, "lambda": _lambda}
    services |= {"cloudformation": _cloudformation, "logs": _logs, "kms": _kms, "iam": _iam, "sqs": _sqs}
    return list(services.get(call.service, _other)(call))


def _other(call: Call) -> Iterator[RequiredPermission]:
    context: dict[str, str | list[str]] = {}
    if call.service == "cloudwatch" and "Namespace" in call.parameters:
        context["cloudwatch:namespace"] = call.parameters["Namespace"]
    if call.service != "sts":  # GetCallerIdentity is always allowed; AssumeRole is the admin's here
        yield RequiredPermission(f"{call.service}:{call.operation}", None, context)


# ---- S3
_READ = {"GetObject": "GetObject", "HeadObject": "GetObject", "GetObjectAttributes": "GetObject"}
_WRITE = {"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "CopyObject", "UploadPartCopy"}
_S3_ACTIONS = {
    **_READ,
    **dict.fromkeys(_WRITE, "PutObject"),
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadBucket": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListParts": "ListMultipartUploadParts",
    "ListBuckets": "ListAllMyBuckets",
    "DeleteObjects": "DeleteObject",
}


def _s3(call: Call) -> Iterator[RequiredPermission]:
    bucket, key = call.parameters.get("Bucket", ""), call.parameters.get("Key")
    action = _S3_ACTIONS.get(call.operation, call.operation)
    if call.operation == "DeleteObjects":
        key = "*"
    arn = f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else "")
    context: dict[str, str | list[str]] = {"aws:SecureTransport": "true"}
    if "prefix" in call.parameters:
        context["s3:prefix"] = call.parameters["prefix"]
    yield RequiredPermission(f"s3:{action}", arn if bucket else "*", context)
    if source := call.header("X-Amz-Copy-Source"):
        from_bucket, _, from_key = unquote(source).lstrip("/").partition("/")
        yield RequiredPermission("s3:GetObject", f"arn:aws:s3:::{from_bucket}/{from_key.partition('?')[0]}", context)
        yield from _use_of_key(from_bucket, "kms:Decrypt")
    if call.operation in _READ or call.operation in ("UploadPart", "CompleteMultipartUpload"):
        yield from _use_of_key(bucket, "kms:Decrypt")
    if call.operation in _WRITE - {"CompleteMultipartUpload"}:
        yield from _use_of_key(bucket, "kms:GenerateDataKey")


def _use_of_key(bucket: str, action: str) -> Iterator[RequiredPermission]:
    """Yield the use of the bucket's key: S3 uses it in the caller's name."""
    found = s3_backends[ACCOUNT]["aws"].buckets.get(bucket)
    rules = (found.encryption or {}).get("Rule", []) if found else []
    for rule in rules if isinstance(rules, list) else [rules]:
        if key := rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID"):
            yield RequiredPermission(action, key, {"kms:ViaService": f"s3.{REGION}.amazonaws.com"})


def _runtime(call: Call) -> Iterator[RequiredPermission]:
    name = unquote(call.parameters["EndpointName"]).lower()
    yield RequiredPermission(f"sagemaker:{call.operation}", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{name}")


# ---- the others
def _lambda(call: Call) -> Iterator[RequiredPermission]:
    action = "InvokeFunction" if call.operation == "Invoke" else call.operation
    name = unquote(str(call.parameters.get("FunctionName", "")))
    if not name:
        return (yield RequiredPermission(f"lambda:{action}", "*"))
    arn = name if name.startswith("arn:") else f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
    if qualifier := call.parameters.get("Qualifier"):
        arn = f"{arn}:{qualifier}"
    yield RequiredPermission(f"lambda:{action}", arn)


def _cloudformation(call: Call) -> Iterator[RequiredPermission]:
    name = call.parameters.get("StackName")
    if not name:
        return (yield RequiredPermission(f"cloudformation:{call.operation}", "*"))
    stacks = cloudformation_backends[ACCOUNT][REGION].stacks.values()
    ids = [stack.stack_id for stack in stacks if name in (stack.name, stack.stack_id)]
    arn = ids[0] if ids else f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{name}/none"
    yield RequiredPermission(f"cloudformation:{call.operation}", arn)


def _logs(call: Call) -> Iterator[RequiredPermission]:
    group = call.parameters.get("logGroupName")
    stream = call.parameters.get("logStreamName")
    arn = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}:" + (f"log-stream:{stream}" if stream else "")
    yield RequiredPermission(f"logs:{call.operation}", arn if group else None)


def _kms(call: Call) -> Iterator[RequiredPermission]:
    key = str(call.parameters.get("KeyId", ""))
    arn = key if key.startswith("arn:") else f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{key}"
    yield RequiredPermission(f"kms:{call.operation}", arn if key else None)


def _iam(call: Call) -> Iterator[RequiredPermission]:
    role = call.parameters.get("RoleName")
    yield RequiredPermission(f"iam:{call.operation}", f"arn:aws:iam::{ACCOUNT}:role/{role}" if role else None)


def _sqs(call: Call) -> Iterator[RequiredPermission]:
    queue = call.parameters.get("QueueUrl", "").rpartition("/")[2]
    yield RequiredPermission(f"sqs:{call.operation}", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}" if queue else None)


# ---- SageMaker
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
}


def _sagemaker(call: Call) -> Iterator[RequiredPermission]:
    context = _sagemaker_keys(call.parameters)
    yield RequiredPermission(f"sagemaker:{call.operation}", _sagemaker_resource(call), context)
    if call.parameters.get("Tags") and call.operation.startswith("Create"):
        yield RequiredPermission("sagemaker:AddTags", _sagemaker_resource(call), context)
    if call.operation.startswith(("Create", "Update")):
        for role in _roles(call.parameters):
            yield RequiredPermission("iam:PassRole", role, {"iam:PassedToService": "sagemaker.amazonaws.com"})


def _sagemaker_resource(call: Call) -> str | None:
    given = call.parameters
    for name in ("PipelineExecutionArn", "ModelPackageArn", "ResourceArn"):
        if name in given:
            return str(given[name])
    if call.operation == "CreateModelPackage":  # the version's number is not known yet
        return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/{given['ModelPackageGroupName'].lower()}/*"
    noun = re.sub(r"^(Create|Describe|Update|Delete|Stop|Start|List)", "", call.operation)
    for name, path in _PATHS.items():
        if noun.startswith(name) and f"{name}Name" in given:
            value = str(given[f"{name}Name"])
            return value if value.startswith("arn:") else f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{path}/{value.lower()}"
    return "*" if call.operation.startswith("List") else None


def _roles(parameters: Any) -> set[str]:
    """Return every role that the request hands to SageMaker."""
    if isinstance(parameters, list):
        return {role for one in parameters for role in _roles(one)}
    if not isinstance(parameters, dict):
        return set()
    own = {value for key, value in parameters.items() if key in ("RoleArn", "ExecutionRoleArn")}
    return own | {role for value in parameters.values() for role in _roles(value)}


# Each condition key with the paths in a request that set it.
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
# The members of a tuning or processing request that hold a job's settings one level down.
_NESTED = ("ProcessingResources", "TrainingJobDefinition")


def _sagemaker_keys(parameters: dict[str, Any]) -> dict[str, str | list[str]]:
    layers = [parameters, *(parameters[name] for name in _NESTED if isinstance(parameters.get(name), dict))]
    found: dict[str, str | list[str]] = {}
    for key, paths in _KEYS.items():
        for layer in layers:
            for path in paths:
                value = _dig(layer, path)
                if value is not None:
                    found[key] = [str(one) for one in value] if isinstance(value, list) else _text(value)
    for variant in parameters.get("ProductionVariants", []):
        if "InstanceType" in variant:
            found["sagemaker:InstanceTypes"] = [variant["InstanceType"]]
    return found


def _dig(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
