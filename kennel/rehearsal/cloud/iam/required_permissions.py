"""The permissions that an API call requires: IAM actions, the ARNs they touch, and the request's condition keys."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import jmespath  # type: ignore[import-untyped]
from botocore import xform_name  # type: ignore[import-untyped]
from moto.cloudformation.models import cloudformation_backends
from moto.codedeploy.models import codedeploy_backends
from moto.s3.models import FakeKey, s3_backends
from moto.sagemaker.models import sagemaker_backends
from moto.sns.models import sns_backends

from kennel.rehearsal.cloud.api import Call
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION

Parameters = dict[str, Any]
Context = Mapping[str, str | list[str]]


@dataclass(frozen=True)
class RequiredPermission:
    """An action on a resource; None: it is not known here which one, any of the policy's will do."""

    action: str
    resource: str | None
    context: Context = field(default_factory=dict)


def required_permissions(call: Call) -> list[RequiredPermission]:
    known = {"cloudwatch": _cloudwatch, "s3": _s3, "sagemaker": _sagemaker, "sns": _sns}
    return list(known.get(call.service, _other)(call))


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
    if key and call.operation in _READ and not _exists(bucket, key):
        # Whoever may not list the bucket is not told that an object is absent: 403 in place of 404.
        yield RequiredPermission("s3:ListBucket", f"arn:aws:s3:::{bucket}", context)
        return
    if source := call.headers.get("X-Amz-Copy-Source", ""):
        from_bucket, _, from_key = unquote(source).lstrip("/").partition("/")
        yield RequiredPermission("s3:GetObject", f"arn:aws:s3:::{from_bucket}/{from_key.partition('?')[0]}", context)
        yield from _use_of_key(from_bucket, "kms:Decrypt")
    if call.operation in _READ or call.operation in ("UploadPart", "CompleteMultipartUpload"):
        yield from _use_of_key(bucket, "kms:Decrypt")
    if call.operation in _WRITE - {"CompleteMultipartUpload"}:
        yield from _use_of_key(bucket, "kms:GenerateDataKey")


def _exists(bucket: str, key: str) -> bool:
    found = s3_backends[ACCOUNT]["aws"].buckets.get(bucket)
    return found is not None and isinstance(found.keys.get(key), FakeKey)


def _use_of_key(bucket: str, action: str) -> Iterator[RequiredPermission]:
    """Yield the use of the bucket's key: S3 uses it in the caller's name."""
    found = s3_backends[ACCOUNT]["aws"].buckets.get(bucket)
    rules = (found.encryption or {}).get("Rule", []) if found else []
    for rule in rules if isinstance(rules, list) else [rules]:
        if key := rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID"):
            yield RequiredPermission(action, key, {"kms:ViaService": f"s3.{REGION}.amazonaws.com"})


# ---- SNS
def _sns(call: Call) -> Iterator[RequiredPermission]:
    arn = str(call.parameters.get("TopicArn", "*"))
    yield RequiredPermission(f"sns:{call.operation}", arn)
    topic = sns_backends[ACCOUNT][REGION].topics.get(arn)
    if topic and topic.kms_master_key_id and call.operation == "Publish":  # SNS uses the key in the caller's name
        for action in ("kms:Decrypt", "kms:GenerateDataKey"):
            yield RequiredPermission(action, topic.kms_master_key_id, {"kms:ViaService": f"sns.{REGION}.amazonaws.com"})


# ---- the others: one resource each
_PREFIXES = {"sagemaker-runtime": "sagemaker", "service-quotas": "servicequotas"}


def _other(call: Call) -> Iterator[RequiredPermission]:
    if call.operation == "GetCallerIdentity":  # always allowed
        return
    action = "InvokeFunction" if call.operation == "Invoke" else call.operation
    resource = _RESOURCES[call.service](call.parameters) if call.service in _RESOURCES else None
    prefix = _PREFIXES.get(call.service, call.service)
    yield RequiredPermission(f"{prefix}:{action}", resource)


def _cloudwatch(call: Call) -> Iterator[RequiredPermission]:
    """Yield the action on each alarm that the call names."""
    given = call.parameters
    context = {"cloudwatch:namespace": given["Namespace"]} if "Namespace" in given else {}
    names = given.get("AlarmNames") or [given.get("AlarmName")]
    for name in names:
        alarm = _arn("cloudwatch", "alarm:", name) if name else None
        yield RequiredPermission(f"cloudwatch:{call.operation}", alarm, context)


def _arn(service: str, path: str, name: str) -> str:
    """Return the ARN of `name`, which may be an ARN itself."""
    return name if name.startswith("arn:") else f"arn:aws:{service}:{REGION}:{ACCOUNT}:{path}{name}"


def _function(given: Parameters) -> str:
    if "FunctionName" not in given:
        return "*"
    arn = _arn("lambda", "function:", given["FunctionName"])
    return f"{arn}:{given['Qualifier']}" if "Qualifier" in given else arn


def _stack(given: Parameters) -> str:
    if "StackName" not in given:
        return "*"
    stacks = cloudformation_backends[ACCOUNT][REGION].stacks.values()
    ids = [str(stack.stack_id) for stack in stacks if given["StackName"] in (stack.name, stack.stack_id)]
    return ids[0] if ids else _arn("cloudformation", "stack/", f"{given['StackName']}/none")


def _deployment_group(given: Parameters) -> str | None:
    found = codedeploy_backends[ACCOUNT][REGION].deployments.get(given.get("deploymentId", ""))
    return (
        _arn("codedeploy", "deploymentgroup:", f"{found.application_name}/{found.deployment_group_name}")
        if found
        else None
    )


def _log(given: Parameters) -> str | None:
    stream = f"log-stream:{given['logStreamName']}" if "logStreamName" in given else ""
    return _arn("logs", "log-group:", f"{given['logGroupName']}:{stream}") if "logGroupName" in given else None


# What a call's parameters say of its resource; None where they name none.
_RESOURCES: dict[str, Callable[[Parameters], str | None]] = {
    "cloudformation": _stack,
    "codedeploy": _deployment_group,
    "ecr": lambda given: _arn("ecr", "repository/", given["repositoryName"]) if "repositoryName" in given else None,
    "iam": lambda given: f"arn:aws:iam::{ACCOUNT}:role/{given['RoleName']}" if "RoleName" in given else None,
    "kms": lambda given: _arn("kms", "key/", given["KeyId"]) if "KeyId" in given else None,
    "lambda": _function,
    "logs": _log,
    "sagemaker-runtime": lambda given: _arn("sagemaker", "endpoint/", given["EndpointName"].lower()),
    "sts": lambda given: given.get("RoleArn"),
    "sqs": lambda given: _arn("sqs", "", given["QueueUrl"].rpartition("/")[2]) if "QueueUrl" in given else None,
}


# ---- SageMaker
def _sagemaker(call: Call) -> Iterator[RequiredPermission]:
    context = _sagemaker_keys(call.parameters)
    yield RequiredPermission(f"sagemaker:{call.operation}", _sagemaker_resource(call), context)
    if call.parameters.get("Tags") and call.operation.startswith("Create"):
        yield RequiredPermission("sagemaker:AddTags", _sagemaker_resource(call), context)
    if call.operation.startswith(("Create", "Update")):
        for role in _roles(call.parameters):
            yield _pass_to_sagemaker(role)
    if call.operation == "StartNotebookInstance":
        yield from _start_of_notebook(call.parameters["NotebookInstanceName"])


def _pass_to_sagemaker(role: str) -> RequiredPermission:
    return RequiredPermission("iam:PassRole", role, {"iam:PassedToService": "sagemaker.amazonaws.com"})


def _start_of_notebook(name: str) -> Iterator[RequiredPermission]:
    """Yield what SageMaker does in the caller's name (Developer Guide, api-permissions-reference)."""
    notebook = sagemaker_backends[ACCOUNT][REGION].notebook_instances.get(name)
    if notebook is None:
        return
    yield _pass_to_sagemaker(str(notebook.role_arn))
    if notebook.subnet_id:
        nouns = ("NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs")
        for action in ("CreateNetworkInterface", *(f"Describe{noun}" for noun in nouns)):
            yield RequiredPermission(f"ec2:{action}", "*")
    if notebook.kms_key_id:
        for action in ("DescribeKey", "CreateGrant"):
            yield RequiredPermission(f"kms:{action}", str(notebook.kms_key_id))


def _sagemaker_resource(call: Call) -> str | None:
    given = call.parameters
    for name in ("PipelineExecutionArn", "ModelPackageArn", "ResourceArn"):
        if name in given:
            return str(given[name])
    if call.operation == "CreateModelPackage":  # the version's number is not known yet
        return _arn("sagemaker", "model-package/", f"{given['ModelPackageGroupName'].lower()}/*")
    noun = re.sub(r"^(CreatePresigned|Create|Describe|Update|Delete|Stop|Start|List)", "", call.operation)
    for member, name in given.items():  # EndpointConfigName: the resource is endpoint-config/<name>
        own = member.removesuffix("Name")
        if member != own and (noun.startswith(own) or noun.endswith(f"For{own}")):
            return _arn("sagemaker", f"{xform_name(own, '-')}/", str(name).lower())
    return "*" if call.operation.startswith("List") else None


def _roles(parameters: Any) -> set[str]:
    if isinstance(parameters, list):
        return {role for one in parameters for role in _roles(one)}
    if not isinstance(parameters, dict):
        return set()
    own = {value for key, value in parameters.items() if key in ("RoleArn", "ExecutionRoleArn")}
    return own | {role for value in parameters.values() for role in _roles(value)}


# Each condition key with the JMESPath of its value in a request, or in the job's settings inside it.
_KEYS = {
    "sagemaker:InstanceTypes": "not_null(ResourceConfig.InstanceType, ClusterConfig.InstanceType, "
    "ProductionVariants[].InstanceType)",
    "sagemaker:NetworkIsolation": "not_null(EnableNetworkIsolation, NetworkConfig.EnableNetworkIsolation)",
    "sagemaker:InterContainerTrafficEncryption": "not_null(EnableInterContainerTrafficEncryption, "
    "NetworkConfig.EnableInterContainerTrafficEncryption)",
    "sagemaker:VolumeKmsKey": "not_null(ResourceConfig.VolumeKmsKeyId, ClusterConfig.VolumeKmsKeyId, KmsKeyId)",
    "sagemaker:OutputKmsKey": "not_null(OutputDataConfig.KmsKeyId, ProcessingOutputConfig.KmsKeyId)",
    "sagemaker:MaxRuntimeInSeconds": "StoppingCondition.MaxRuntimeInSeconds",
    "sagemaker:VpcSubnets": "not_null(VpcConfig, NetworkConfig.VpcConfig).Subnets",
    "sagemaker:VpcSecurityGroupIds": "not_null(VpcConfig, NetworkConfig.VpcConfig).SecurityGroupIds",
    "sagemaker:ModelApprovalStatus": "ModelApprovalStatus",
}


def _sagemaker_keys(parameters: Parameters) -> dict[str, str | list[str]]:
    found: dict[str, str | list[str]] = {}
    for settings in (parameters, parameters.get("ProcessingResources"), parameters.get("TrainingJobDefinition")):
        for key, path in _KEYS.items():
            value = jmespath.search(path, settings)
            if value not in (None, []):
                found[key] = [str(one) for one in value] if isinstance(value, list) else as_text(value)
    return found


def as_text(value: Any) -> str:
    """Return a value as policies write it: booleans in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)
