"""S3's types: moto's CloudFormation creates a bucket and drops most of its properties, while its API takes them all."""

import json
from collections.abc import Callable
from typing import Any

from botocore import xform_name  # type: ignore[import-untyped]

from kennel.rehearsal.cloud.clients import admin
from kennel.rehearsal.cloud.cloudformation.resource import (
    Created,
    EnactedType,
    Properties,
    Read,
    by_id,
    conform,
    named,
)


def _lifecycle(value: Properties) -> Properties:
    return {"Rules": [_rule(rule, number) for number, rule in enumerate(value["Rules"])]}


def _rule(rule: Properties, number: int) -> Properties:
    converted: Properties = {"ID": rule.get("Id", f"rule-{number}"), "Status": rule["Status"], "Filter": _filter(rule)}
    moves = rule.get("Transitions", [])
    if moves:
        converted["Transitions"] = [
            {"Days": move["TransitionInDays"], "StorageClass": move["StorageClass"]} for move in moves
        ]
    expiration = {
        name: rule[key]
        for key, name in (("ExpirationInDays", "Days"), ("ExpiredObjectDeleteMarker", "ExpiredObjectDeleteMarker"))
        if key in rule
    }
    if expiration:
        converted["Expiration"] = expiration
    for key in ("NoncurrentVersionExpiration", "NoncurrentVersionTransitions", "AbortIncompleteMultipartUpload"):
        if key in rule:
            converted[key] = rule[key]
    return converted


def _filter(rule: Properties) -> Properties:
    tags = rule.get("TagFilters", [])
    if not tags:
        return {"Prefix": rule.get("Prefix", "")}
    return {"And": {"Prefix": rule.get("Prefix", ""), "Tags": tags}}


def _encryption(value: Properties) -> Properties:
    rules = [
        {**rule, "ApplyServerSideEncryptionByDefault": rule.get("ServerSideEncryptionByDefault", {})}
        for rule in value["ServerSideEncryptionConfiguration"]
    ]
    return {"Rules": [{k: v for k, v in rule.items() if k != "ServerSideEncryptionByDefault"} for rule in rules]}


def _logging(value: Properties) -> Properties:
    target = value.get("DestinationBucketName")
    return {"LoggingEnabled": {"TargetBucket": target, "TargetPrefix": value.get("LogFilePrefix", "")}}


def _notification(value: Properties) -> Properties:
    enabled = value.get("EventBridgeConfiguration", {}).get("EventBridgeEnabled", True)
    return {"EventBridgeConfiguration": {}} if str(enabled).lower() == "true" else {}


# property, operation, its member, how the property becomes the member
_PARTS: list[tuple[str, str, str, Callable[[Any], Any]]] = [
    ("VersioningConfiguration", "PutBucketVersioning", "VersioningConfiguration", dict),
    ("PublicAccessBlockConfiguration", "PutPublicAccessBlock", "PublicAccessBlockConfiguration", dict),
    ("LifecycleConfiguration", "PutBucketLifecycleConfiguration", "LifecycleConfiguration", _lifecycle),
    ("BucketEncryption", "PutBucketEncryption", "ServerSideEncryptionConfiguration", _encryption),
    ("LoggingConfiguration", "PutBucketLogging", "BucketLoggingStatus", _logging),
    ("NotificationConfiguration", "PutBucketNotificationConfiguration", "NotificationConfiguration", _notification),
    ("OwnershipControls", "PutBucketOwnershipControls", "OwnershipControls", dict),
    ("Tags", "PutBucketTagging", "Tagging", lambda tags: {"TagSet": tags}),
]


def _put_parts(created: Created) -> None:
    s3 = admin("s3")
    for name, operation, member, turn in _PARTS:
        if name in created.properties:
            shape = s3.meta.service_model.operation_model(operation).input_shape.members[member]
            value = conform(shape, turn(created.properties[name]))
            getattr(s3, xform_name(operation))(Bucket=created.physical_id, **{member: value})


def _update(created: Created, properties: Properties) -> bool:
    if properties.get("BucketName", created.physical_id) != created.physical_id:
        return False
    created.properties = {"BucketName": created.physical_id, **properties}
    _put_parts(created)
    return True


def _update_policy(created: Created, properties: Properties) -> bool:
    if properties["Bucket"] != created.properties["Bucket"]:
        return False
    admin("s3").put_bucket_policy(Bucket=properties["Bucket"], Policy=json.dumps(properties["PolicyDocument"]))
    created.properties = properties
    return True


_READS = (
    "get_bucket_versioning",
    "get_bucket_encryption",
    "get_bucket_logging",
    "get_bucket_tagging",
    "get_public_access_block",
    "get_bucket_lifecycle_configuration",
    "get_bucket_notification_configuration",
)
TYPES = [
    named(
        "AWS::S3::Bucket",
        "s3",
        "CreateBucket",
        "DeleteBucket",
        "BucketName",
        parameters=lambda properties: {"Bucket": properties["BucketName"]},
        attributes={
            "Arn": lambda created: f"arn:aws:s3:::{created.physical_id}",
            "DomainName": lambda created: f"{created.physical_id}.s3.amazonaws.com",
            "RegionalDomainName": lambda created: f"{created.physical_id}.s3.us-east-1.amazonaws.com",
        },
        after=_put_parts,
        update=_update,
        reads=[Read(operation, by_id("Bucket")) for operation in _READS],
    ),
    EnactedType(
        type="AWS::S3::BucketPolicy",
        service="s3",
        create="PutBucketPolicy",
        parameters=lambda properties: {**properties, "Policy": json.dumps(properties["PolicyDocument"])},
        ref=lambda created: str(created.properties["Bucket"]),
        update=_update_policy,
        delete=lambda created: admin("s3").delete_bucket_policy(Bucket=created.physical_id),
        reads=[Read("get_bucket_policy", by_id("Bucket"))],
        note="its Deny statements are evaluated for roles; loopback stands for TLS",
    ),
]
