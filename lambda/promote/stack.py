"""The only module that holds boto3: one stack, looked at and updated by one parameter."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from promote.errors import StackBroken, StackBusy


@dataclass(frozen=True)
class Stack:
    """`status` in CloudFormation's words, `reason` its explanation or empty."""

    name: str
    status: str
    reason: str
    parameters: Mapping[str, str]


@lru_cache(maxsize=1)
def _client() -> Any:
    retries = {"mode": "standard", "total_max_attempts": 5}
    return boto3.client("cloudformation", config=Config(connect_timeout=3, read_timeout=10, retries=retries))


def describe(name: str) -> Stack:
    """Raises StackBroken when there is none."""
    try:
        found = _client().describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            raise StackBroken(f"There is no stack {name}; deploy it first.") from error
        raise
    parameters = {given["ParameterKey"]: given.get("ParameterValue", "") for given in found.get("Parameters", [])}
    return Stack(name, found["StackStatus"], found.get("StackStatusReason", ""), parameters)


def update(name: str, key: str, value: str, kept: Collection[str]) -> bool:
    """Begin an update in which only `key` changes; False when that changes nothing. Raises StackBusy."""
    parameters = [{"ParameterKey": other, "UsePreviousValue": True} for other in kept]
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
