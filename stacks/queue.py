"""Queues: encrypted by SQS, for TLS only, kept for 14 days."""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks.permissions import acknowledge


def queue(scope: Construct, id_: str, *, last: str = "", **properties: Any) -> sqs.Queue:
    """Return a queue; `last` says why it has no dead-letter queue itself, `properties` are sqs.Queue's."""
    made = sqs.Queue(
        scope,
        id_,
        encryption=sqs.QueueEncryption.SQS_MANAGED,
        enforce_ssl=True,
        retention_period=cdk.Duration.days(14),
        **properties,
    )
    if last:
        acknowledge(made, last, "AwsSolutions-SQS3")
    return made
