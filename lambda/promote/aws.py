"""Reads model packages and alarms, describes the hosting stack and updates it; the only module with boto3."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]


class PromoteError(Exception):
    """Why a release could not begin; the text is for the operator who reads the log."""


class StackBusy(PromoteError):
    """The stack is being changed; the same approval may succeed later."""


class StackBroken(PromoteError):
    """The stack takes no update before somebody has looked at it."""


@dataclass(frozen=True)
class Stack:
    """A stack: `status` in CloudFormation's words, `reason` its explanation or empty."""

    name: str
    status: str
    reason: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]


@cache
def _client(service: str) -> Any:
    retries = {"mode": "standard", "total_max_attempts": 3}
    return boto3.client(service, config=Config(connect_timeout=2, read_timeout=5, retries=retries))


def is_approved(model_package: str) -> bool:
    """Return whether the package with this ARN can be served: it exists, is complete, and its approval still holds."""
    try:
        found = _client("sagemaker").describe_model_package(ModelPackageName=model_package)
    except ClientError as error:
        if "does not exist" in str(error):
            return False
        raise
    return (found.get("ModelApprovalStatus"), found["ModelPackageStatus"]) == ("Approved", "Completed")


def describe(name: str) -> Stack:
    """Return the stack. Raise StackBroken when there is none."""
    try:
        found = _client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            raise StackBroken(f"There is no stack {name}; deploy it first.") from error
        raise
    parameters = {given["ParameterKey"]: given.get("ParameterValue", "") for given in found.get("Parameters", [])}
    outputs = {given["OutputKey"]: given["OutputValue"] for given in found.get("Outputs", [])}
    return Stack(name, found["StackStatus"], found.get("StackStatusReason", ""), parameters, outputs)


def quiet_alarms(arns: Sequence[str]) -> list[str]:
    """Return those of the alarms that exist and do not ring."""
    names = [arn.partition(":alarm:")[2] for arn in arns]
    found = _client("cloudwatch").describe_alarms(AlarmNames=names)["MetricAlarms"]
    return [each["AlarmArn"] for each in found if each["StateValue"] != "ALARM"]


def update(stack: Stack, changes: Mapping[str, str], token: str, alarms: Sequence[str], minutes: int) -> bool:
    """Begin an update in which the parameters `changes` change, and which CloudFormation takes back if an alarm rings.

    It watches `alarms` (ARNs) during the update and for `minutes` after it. A stack keeps the alarms of its last update
    where none are given, so they are always given. Return False when that changes nothing or has begun before under
    the same `token`. Raise StackBusy.
    """
    new = [{"ParameterKey": key, "ParameterValue": value} for key, value in changes.items()]
    old = [{"ParameterKey": key, "UsePreviousValue": True} for key in stack.parameters if key not in changes]
    triggers = [{"Arn": arn, "Type": "AWS::CloudWatch::Alarm"} for arn in alarms]
    try:
        _client("cloudformation").update_stack(
            StackName=stack.name,
            UsePreviousTemplate=True,
            Parameters=[*new, *old],
            Capabilities=["CAPABILITY_IAM"],
            ClientRequestToken=token,
            RollbackConfiguration={
                "RollbackTriggers": triggers,
                "MonitoringTimeInMinutes": minutes if triggers else 0,
            },
        )
    except ClientError as error:
        if "No updates are to be performed" in str(error) or "TokenAlreadyExists" in str(error):
            return False
        if "_IN_PROGRESS state" in str(error):
            raise StackBusy(f"{stack.name} began another update just now; the approval will come again.") from error
        raise
    return True
