"""S3's types: moto's CloudFormation creates a bucket and drops most of its properties, while its API takes them all."""

import json
from collections.abc import Callable
from typing import Any

from kennel.rehearsal.cloud.clients import client
from kennel.rehearsal.cloud.cloudformation.resource import (
    Created,
    EnactedType,
    Properties,
    Read,
    by_id,
    call,
    named,
)


# Each function returns what the API's operation takes for a property; members that it does not know are left out later.
def _lifecycle(value: Properties) -> Properties:
    return {"Rules": [_rule(rule, number) for number, rule in enumerate(value["Rules"])]}


def _rule(rule: Properties, number: int) -> Properties:
    prefix, tags = {"Prefix": rule.get("Prefix", "")}, rule.get("TagFilters")
    converted = {
        "ID": rule.get("Id", f"rule-{number}"),
        "Filter": {"And": {**prefix, "Tags": tags}} if tags else prefix,
        "Transitions": [{**move, "Days": move["TransitionInDays"]} for move in rule.get("Transitions", [])],
        "Expiration": {name.replace("ExpirationInDays", "Days"): rule[name] for name in _EXPIRATION if name in rule},
    }
    rest = {key: value for key, value in rule.items() if key not in ("Id", "Prefix", *converted, *_EXPIRATION)}
    return {**rest, **{key: value for key, value in converted.items() if value}}


_EXPIRATION = ("ExpirationInDays", "ExpiredObjectDeleteMarker")


def _encryption(value: Properties) -> Properties:
    rules = value["ServerSideEncryptionConfiguration"]
    name = "ServerSideEncryptionByDefault"
    return {"Rules": [{**rule, f"Apply{name}": rule.get(name, {})} for rule in rules]}


def _logging(value: Properties) -> Properties:
    target = value.get("DestinationBucketName")
    return {"LoggingEnabled": {"TargetBucket": target, "TargetPrefix": value.get("LogFilePrefix", "")}}


def _notification(value: Properties) -> Properties:
    enabled = value.get("EventBridgeConfiguration", {}).get("EventBridgeEnabled", True)
    return {"EventBridgeConfiguration": {}} if str(enabled).lower() == "true" else {}


# property, operation, its member, how the property becomes the member
_SETTINGS: list[tuple[str, str, str, Callable[[Any], Any]]] = [
    ("VersioningConfiguration", "PutBucketVersioning", "VersioningConfiguration", dict),
    ("PublicAccessBlockConfiguration", "PutPublicAccessBlock", "PublicAccessBlockConfiguration", dict),
    ("LifecycleConfiguration", "PutBucketLifecycleConfiguration", "LifecycleConfiguration", _lifecycle),
    ("BucketEncryption", "PutBucketEncryption", "ServerSideEncryptionConfiguration", _encryption),
    ("LoggingConfiguration", "PutBucketLogging", "BucketLoggingStatus", _logging),
    ("NotificationConfiguration", "PutBucketNotificationConfiguration", "NotificationConfiguration", _notification),
    ("OwnershipControls", "PutBucketOwnershipControls", "OwnershipControls", dict),
    ("Tags", "PutBucketTagging", "Tagging", lambda tags: {"TagSet": tags}),
]


def _put_settings(created: Created) -> None:
    for name, operation, member, convert in _SETTINGS:
        if name in created.properties:
            call("s3", operation, {"Bucket": created.physical_id, member: convert(created.properties[name])})


def _policy(properties: Properties) -> Properties:
    return {"Bucket": properties["Bucket"], "Policy": json.dumps(properties["PolicyDocument"])}


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
        after=_put_settings,
        update=lambda created, _before: _put_settings(created),
        reads=[Read(operation, by_id("Bucket")) for operation in _READS],
    ),
    EnactedType(
        type="AWS::S3::BucketPolicy",
        service="s3",
        create="PutBucketPolicy",
        parameters=_policy,
        ref=lambda created: str(created.properties["Bucket"]),
        update=lambda created, _before: client("s3").put_bucket_policy(**_policy(created.properties)),
        fixed=("Bucket",),
        delete=lambda created: client("s3").delete_bucket_policy(Bucket=created.physical_id),
        reads=[Read("get_bucket_policy", by_id("Bucket"))],
        note="its Deny statements are evaluated for roles; loopback stands for TLS",
    ),
]
