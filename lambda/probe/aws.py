"""Reads the release and its probes, asks endpoint and function, reports; the only module with boto3."""

import base64
import json
import time
import uuid
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

MARK = "kennel-probe"  # by which the server leaves a request out of its metrics, and the drift job out of its windows
_CONNECTIONS = 20


@dataclass(frozen=True)
class Probe:
    """A photo, and the label that the evaluated model gave it."""

    photo: bytes
    label: str


@cache
def _client(service: str) -> Any:
    # A photo that is not answered in ten seconds is given up here; SageMaker goes on waiting, and counts it.
    config = Config(
        connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}, max_pool_connections=_CONNECTIONS
    )
    if service == "lambda":  # whose answer takes up to 29 s; a call that finds no free environment is made again
        config = Config(connect_timeout=2, read_timeout=35, retries={"total_max_attempts": 8, "mode": "standard"})
    return boto3.client(service, config=config)


def release_of(stack: str) -> tuple[str, str]:
    """Return the stack's status and the ARN of the model package that it has, or is being updated to; empty: none."""
    found = _client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    values = {one["ParameterKey"]: one["ParameterValue"] for one in found["Parameters"]}
    return found["StackStatus"], values.get("ModelPackageArn", "")


@cache
def probes_of(package: str) -> tuple[Probe, ...]:
    """Return the package's probes, which lie beside its evaluation.json; none for a model that was evaluated without.

    The function may not list the bucket, so an absent object is denied.
    """
    about = _client("sagemaker").describe_model_package(ModelPackageName=package)
    statistics = about.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics", {}).get("S3Uri", "")
    bucket, _, key = statistics.removeprefix("s3://").partition("/")
    folder = f"{key.rpartition('/')[0]}/probes"
    try:
        listed = json.loads(_read(bucket, f"{folder}/probes.json"))["probes"]
    except ClientError as error:
        if error.response["Error"]["Code"] in ("AccessDenied", "NoSuchKey"):
            return ()
        raise
    return tuple(Probe(_read(bucket, f"{folder}/{one['file']}"), one["label"]) for one in listed)


def _read(bucket: str, key: str) -> bytes:
    body: bytes = _client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def ask(endpoint: str, photo: bytes) -> dict[str, Any] | None:
    """Return the server's answer, None where there was none."""
    request = {"ContentType": "application/x-image", "Accept": "application/json", "CustomAttributes": MARK}
    request["InferenceId"] = f"{MARK}-{uuid.uuid4()}"  # which captured lines show
    try:
        response = _client("sagemaker-runtime").invoke_endpoint(EndpointName=endpoint, Body=photo, **request)
        answer: dict[str, Any] = json.loads(response["Body"].read())
    except (BotoCoreError, ClientError, ValueError):
        return None
    return answer


def best_label(answer: dict[str, Any]) -> str:
    """Return the likeliest class of the server's answer."""
    return str(max(zip(answer["probabilities"], answer["classes"], strict=True))[1])


def call(function: str, photo: bytes) -> tuple[dict[str, Any] | None, float]:
    """Return what the function answers and the seconds it took; None where it crashed or ran out of time."""
    payload = json.dumps({"image": base64.b64encode(photo).decode()})
    began = time.monotonic()
    response = _client("lambda").invoke(FunctionName=function, Payload=payload)
    answer = json.loads(response["Payload"].read())
    is_answer = "FunctionError" not in response and isinstance(answer, dict)
    return answer if is_answer else None, time.monotonic() - began


def report(deployment: str, hook: str, status: str) -> None:
    """Tell CodeDeploy how its hook ended: Succeeded or Failed."""
    _client("codedeploy").put_lifecycle_event_hook_execution_status(
        deploymentId=deployment, lifecycleEventHookExecutionId=hook, status=status
    )


def publish(package: str, *, right: int, wrong: int) -> None:
    """Publish WrongAnswers, in percent of the new model's answers: their number is the metric's number of samples."""
    counted = [(value, count) for value, count in ((0.0, right), (100.0, wrong)) if count]
    if not counted:
        return
    datum = {
        "MetricName": "WrongAnswers",
        "Dimensions": [{"Name": "ModelPackage", "Value": package}],
        "Values": [value for value, _ in counted],
        "Counts": [count for _, count in counted],
        "Unit": "Percent",
    }
    _client("cloudwatch").put_metric_data(Namespace="Kennel/Release", MetricData=[datum])
