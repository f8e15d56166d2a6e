"""Describes the hosting stack and updates one of its parameters; the only module with boto3."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]


class PromoteError(Exception):
    """Why a release could not begin; the text is for the operator who reads the log."""


class StackBusy(PromoteError):
    """The stack is being changed; the same event may succeed later."""


class StackBroken(PromoteError):
    """The stack takes no update before somebody has looked at it."""


@dataclass(frozen=True)
class Stack:
    """A stack: `status` in CloudFormation's words, `reason` its explanation or empty."""

    name: str
    status: str
    reason: str
    parameters: Mapping[str, str]


@lru_cache(maxsize=1)
def _client() -> Any:
    retries = {"mode": "standard", "total_max_attempts": 5}
    return boto3.client("cloudformation", config=Config(connect_timeout=3, read_timeout=10, retries=retries))


def describe(name: str) -> Stack:
    """Return the stack. Raise StackBroken when there is none."""
    try:
        found = _client().describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            raise StackBroken(f"There is no stack {name}; deploy it first.") from error
        raise
    parameters = {given["ParameterKey"]: given.get("ParameterValue", "") for given in found.get("Parameters", [])}
    return Stack(name, found["StackStatus"], found.get("StackStatusReason", ""), parameters)


def update(name: str, key: str, value: str, others: Collection[str]) -> bool:
    """Begin an update in which only `key` changes; return False when that changes nothing. Raise StackBusy."""
    parameters = [{"ParameterKey": other, "UsePreviousValue": True} for other in others]
    try:
        _client().update_stack(
            StackName=name,
            UsePreviousTemplate=True,
            Parameters=[{"ParameterKey": key, "ParameterValue": value}, *parameters],
            Capabilities=["CAPABILITY_IAM"],
        )
    except ClientError as error:
        if "No updates are to be performed" in str(error):
            return False
        if "_IN_PROGRESS state" in str(error):
            raise StackBusy(f"{name} began another update just now; the event will come again.") from error
        raise
    return True
