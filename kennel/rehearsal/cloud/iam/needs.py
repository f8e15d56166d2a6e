"""What a call needs to be permitted: IAM actions, the ARNs they touch, and the condition keys of the request."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

from moto.cloudformation.models import cloudformation_backends
from moto.s3.models import s3_backends

from kennel.rehearsal.cloud.clients import ACCOUNT, REGION
from kennel.rehearsal.cloud.iam.sagemaker_needs import Need, sagemaker
from kennel.rehearsal.cloud.request import Call


def needs(call: Call) -> list[Need]:
    """Everything that must be allowed for `call`."""
    tell = {"s3": _s3, "sagemaker": sagemaker, "sagemaker-runtime": _runtime, "lambda": _lambda}
    tell |= {"cloudformation": _cloudformation, "logs": _logs, "kms": _kms, "iam": _iam, "sqs": _sqs}
    return list(tell.get(call.service, _other)(call))


def _other(call: Call) -> Iterator[Need]:
    context: dict[str, str | list[str]] = {}
    if call.service == "cloudwatch" and "Namespace" in call.parameters:
        context["cloudwatch:namespace"] = call.parameters["Namespace"]
    if call.service != "sts":  # GetCallerIdentity is always allowed; AssumeRole is the admin's here
        yield Need(f"{call.service}:{call.operation}", None, context)


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


def _s3(call: Call) -> Iterator[Need]:
    bucket, key = call.parameters.get("Bucket", ""), call.parameters.get("Key")
    action = _S3_ACTIONS.get(call.operation, call.operation)
    if call.operation == "DeleteObjects":
        key = "*"
    arn = f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else "")
    context: dict[str, str | list[str]] = {"aws:SecureTransport": "true"}
    if "prefix" in call.parameters:
        context["s3:prefix"] = call.parameters["prefix"]
    yield Need(f"s3:{action}", arn if bucket else "*", context)
    if source := call.header("X-Amz-Copy-Source"):
        from_bucket, _, from_key = unquote(source).lstrip("/").partition("/")
        yield Need("s3:GetObject", f"arn:aws:s3:::{from_bucket}/{from_key.partition('?')[0]}", context)
        yield from _key_needs(from_bucket, "kms:Decrypt")
    if call.operation in _READ or call.operation in ("UploadPart", "CompleteMultipartUpload"):
        yield from _key_needs(bucket, "kms:Decrypt")
    if call.operation in _WRITE - {"CompleteMultipartUpload"}:
        yield from _key_needs(bucket, "kms:GenerateDataKey")


def _key_needs(bucket: str, action: str) -> Iterator[Need]:
    """S3 uses the bucket's key in the caller's name."""
    held = s3_backends[ACCOUNT]["aws"].buckets.get(bucket)
    rules = (held.encryption or {}).get("Rule", []) if held else []
    for rule in rules if isinstance(rules, list) else [rules]:
        if key := rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID"):
            yield Need(action, key, {"kms:ViaService": f"s3.{REGION}.amazonaws.com"})


def _runtime(call: Call) -> Iterator[Need]:
    name = unquote(call.parameters["EndpointName"]).lower()
    yield Need(f"sagemaker:{call.operation}", f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{name}")


# ---- the others
def _lambda(call: Call) -> Iterator[Need]:
    action = "InvokeFunction" if call.operation == "Invoke" else call.operation
    name = unquote(str(call.parameters.get("FunctionName", "")))
    if not name:
        return (yield Need(f"lambda:{action}", "*"))
    arn = name if name.startswith("arn:") else f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
    if qualifier := call.parameters.get("Qualifier"):
        arn = f"{arn}:{qualifier}"
    yield Need(f"lambda:{action}", arn)


def _cloudformation(call: Call) -> Iterator[Need]:
    name = call.parameters.get("StackName")
    if not name:
        return (yield Need(f"cloudformation:{call.operation}", "*"))
    stacks = cloudformation_backends[ACCOUNT][REGION].stacks.values()
    ids = [stack.stack_id for stack in stacks if name in (stack.name, stack.stack_id)]
    arn = ids[0] if ids else f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{name}/none"
    yield Need(f"cloudformation:{call.operation}", arn)


def _logs(call: Call) -> Iterator[Need]:
    group = call.parameters.get("logGroupName")
    stream = call.parameters.get("logStreamName")
    arn = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}:" + (f"log-stream:{stream}" if stream else "")
    yield Need(f"logs:{call.operation}", arn if group else None)


def _kms(call: Call) -> Iterator[Need]:
    key = str(call.parameters.get("KeyId", ""))
    arn = key if key.startswith("arn:") else f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{key}"
    yield Need(f"kms:{call.operation}", arn if key else None)


def _iam(call: Call) -> Iterator[Need]:
    role = call.parameters.get("RoleName")
    yield Need(f"iam:{call.operation}", f"arn:aws:iam::{ACCOUNT}:role/{role}" if role else None)


def _sqs(call: Call) -> Iterator[Need]:
    url = call.parameters.get("QueueUrl", "")
    yield Need(f"sqs:{call.operation}", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{url.rpartition('/')[2]}" if url else None)
