"""S3: moto's CloudFormation makes the bucket and forgets most of its properties; the API takes them all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from botocore import xform_name  # type: ignore[import-untyped]

from kennel.rehearsal.cloud.clients import admin
from kennel.rehearsal.cloud.cloudformation.types.resource import Made, Properties, Row, conform


def _lifecycle(value: Properties) -> Properties:
    return {"Rules": [_rule(rule, number) for number, rule in enumerate(value["Rules"])]}


def _rule(rule: Properties, number: int) -> Properties:
    made: Properties = {"ID": rule.get("Id", f"rule-{number}"), "Status": rule["Status"], "Filter": _filter(rule)}
    moves = rule.get("Transitions", [])
    if moves:
        made["Transitions"] = [
            {"Days": move["TransitionInDays"], "StorageClass": move["StorageClass"]} for move in moves
        ]
    expiration = {
        name: rule[key]
        for key, name in (("ExpirationInDays", "Days"), ("ExpiredObjectDeleteMarker", "ExpiredObjectDeleteMarker"))
        if key in rule
    }
    if expiration:
        made["Expiration"] = expiration
    for key in ("NoncurrentVersionExpiration", "NoncurrentVersionTransitions", "AbortIncompleteMultipartUpload"):
        if key in rule:
            made[key] = rule[key]
    return made


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
    wanted = value.get("EventBridgeConfiguration", {}).get("EventBridgeEnabled", True)
    return {"EventBridgeConfiguration": {}} if str(wanted).lower() == "true" else {}


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


def _put_parts(made: Made) -> None:
    s3 = admin("s3")
    for name, operation, member, turn in _PARTS:
        if name in made.wanted:
            shape = s3.meta.service_model.operation_model(operation).input_shape.members[member]
            value = conform(shape, turn(made.wanted[name]))
            getattr(s3, xform_name(operation))(Bucket=made.physical, **{member: value})


def _name(properties: Properties) -> Properties:
    return {"Bucket": properties["BucketName"]}


def _update(made: Made, wanted: Properties) -> bool:
    if wanted.get("BucketName", made.physical) != made.physical:
        return False
    made.wanted = {"BucketName": made.physical, **wanted}
    _put_parts(made)
    return True


def _policy(made: Made, wanted: Properties) -> bool:
    if wanted["Bucket"] != made.wanted["Bucket"]:
        return False
    admin("s3").put_bucket_policy(Bucket=wanted["Bucket"], Policy=json.dumps(wanted["PolicyDocument"]))
    made.wanted = wanted
    return True


ROWS = [
    Row(
        type="AWS::S3::Bucket",
        service="s3",
        create="CreateBucket",
        name="BucketName",
        shape=_name,
        ref=lambda made: str(made.wanted["BucketName"]),
        attributes={
            "Arn": lambda made: f"arn:aws:s3:::{made.physical}",
            "DomainName": lambda made: f"{made.physical}.s3.amazonaws.com",
            "RegionalDomainName": lambda made: f"{made.physical}.s3.us-east-1.amazonaws.com",
        },
        after=_put_parts,
        update=_update,
        delete=lambda made: admin("s3").delete_bucket(Bucket=made.physical),
    ),
    Row(
        type="AWS::S3::BucketPolicy",
        service="s3",
        create="PutBucketPolicy",
        shape=lambda properties: {"Bucket": properties["Bucket"], "Policy": json.dumps(properties["PolicyDocument"])},
        ref=lambda made: str(made.wanted["Bucket"]),
        update=_policy,
        delete=lambda made: admin("s3").delete_bucket_policy(Bucket=made.physical),
    ),
]
