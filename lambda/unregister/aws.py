"""Reads the stack's status, and lists and deletes the packages of one group; the only module with boto3."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]


@lru_cache(maxsize=2)
def _client(service: str) -> Any:
    # SageMaker throttles deletions early, so attempts are many. A call with all of them takes at most 135 s.
    retries = {"mode": "standard", "total_max_attempts": 8}
    return boto3.client(service, config=Config(connect_timeout=3, read_timeout=5, retries=retries))


def stack_status(stack_id: str) -> str:
    """Return the status in CloudFormation's words."""
    return str(_client("cloudformation").describe_stacks(StackName=stack_id)["Stacks"][0]["StackStatus"])


def packages(group: str) -> Iterator[str]:
    """Yield the ARN of every version in the group, page by page; none when there is no such group."""
    pages = _client("sagemaker").get_paginator("list_model_packages").paginate(ModelPackageGroupName=group)
    try:
        for page in pages:
            yield from (package["ModelPackageArn"] for package in page["ModelPackageSummaryList"])
    except ClientError as error:
        if not _is_absent(error):
            raise


def delete(arn: str) -> None:
    """Delete a package; one that is gone already is no error."""
    try:
        _client("sagemaker").delete_model_package(ModelPackageName=arn)
    except ClientError as error:
        if not _is_absent(error):
            raise


def _is_absent(error: ClientError) -> bool:
    # SageMaker answers either, depending on the operation.
    return error.response["Error"]["Code"] == "ResourceNotFound" or "does not exist" in str(error)
