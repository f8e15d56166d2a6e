"""The stage that is observed: its stack, endpoint, alarms, registry, records and topic; the only module with boto3."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from itertools import chain, dropwhile, takewhile
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from observe.records import PREFIX, Entry, Record

_STACK = "AWS::CloudFormation::Stack"


@lru_cache(maxsize=8)
def _client(service: str) -> Any:
    retries = {"mode": "standard", "total_max_attempts": 5}
    return boto3.client(service, config=Config(connect_timeout=3, read_timeout=10, retries=retries))


@dataclass(frozen=True)
class Operation:
    """One update of the stack: `begun`, why it failed (empty where it did not), and whether none came after it."""

    begun: datetime
    reason: str
    is_newest: bool


class Stage:
    """The stage that the environment names."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.stack, self.endpoint = environment["HOSTING_STACK"], environment["ENDPOINT_NAME"]
        self._packages, self._bucket = environment["MODEL_PACKAGES"], environment["RECORDS_BUCKET"]
        self._topic = environment["ALARM_TOPIC"]

    # ---- The stack and its endpoint
    def stack_status(self) -> str:
        """Return the hosting stack's status in CloudFormation's words."""
        return str(self._stack()["StackStatus"])

    def newest_token(self) -> str:
        """Return the ClientRequestToken of the stack's newest operation, or an empty text."""
        return str(next(self._events(), {}).get("ClientRequestToken", ""))

    def operation(self, token: str) -> Operation:
        """Return the operation whose events have `token`; operations of a stack come one after the other."""
        events = self._events()
        newest = next(events)
        others = dropwhile(lambda event: event.get("ClientRequestToken", "") != token, chain([newest], events))
        own = list(takewhile(lambda event: event.get("ClientRequestToken", "") == token, others))
        return Operation(own[-1]["Timestamp"], _reason(own[::-1]), newest.get("ClientRequestToken", "") == token)

    def declared_config(self) -> str:
        """Return the name of the stack's endpoint configuration, in lower case as in ARNs; empty before a release."""
        found = _client("cloudformation").describe_stack_resources(StackName=self.stack)["StackResources"]
        ids = [one["PhysicalResourceId"] for one in found if one["ResourceType"] == "AWS::SageMaker::EndpointConfig"]
        return str(ids[0]).rpartition("/")[2].lower() if ids else ""

    def served_config(self) -> str:
        """Return the name of the configuration that the endpoint serves, in lower case; empty without an endpoint."""
        try:
            found = _client("sagemaker").describe_endpoint(EndpointName=self.endpoint)
        except ClientError as error:
            if "Could not find" not in str(error):
                raise
            return ""
        return str(found["EndpointConfigName"]).lower()

    def alarm_that_rang(self, begun: datetime, ended: datetime) -> str:
        """Return the rollback alarm that rang first between two times, or an empty text."""
        outputs = {one["OutputKey"]: one["OutputValue"] for one in self._stack().get("Outputs", [])}
        arns = outputs.get("RollbackAlarmArns", "")
        rang: list[tuple[datetime, str]] = []
        for name in [arn.rpartition(":alarm:")[2] for arn in arns.split(",") if arn]:
            pages = _client("cloudwatch").get_paginator("describe_alarm_history")
            asked = {"AlarmName": name, "HistoryItemType": "StateUpdate", "StartDate": begun, "EndDate": ended}
            items = pages.paginate(**asked).search("AlarmHistoryItems[]")
            rang += [(one["Timestamp"], name) for one in items if one["HistorySummary"].endswith("to ALARM")]
        return min(rang)[1] if rang else ""

    def _stack(self) -> dict[str, Any]:
        found: dict[str, Any] = _client("cloudformation").describe_stacks(StackName=self.stack)["Stacks"][0]
        return found

    def _events(self) -> Iterator[dict[str, Any]]:
        """Yield the stack's events, newest first."""
        pages = _client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=self.stack)
        yield from pages.search("StackEvents[]")

    # ---- The registry
    def arn(self, version: int) -> str:
        """Return the ARN of a version of the stage's model package group."""
        return f"{self._packages}/{version}"

    def package(self, version: int) -> dict[str, Any]:
        """Return what DescribeModelPackage says."""
        found: dict[str, Any] = _client("sagemaker").describe_model_package(ModelPackageName=self.arn(version))
        return found

    def set_approval(self, version: int, status: str, why: str) -> None:
        """Set the approval; `why` is cut to what SageMaker takes."""
        _client("sagemaker").update_model_package(
            ModelPackageArn=self.arn(version), ModelApprovalStatus=status, ApprovalDescription=why[:1024]
        )

    def set_life_cycle(self, version: int, status: str, why: str) -> None:
        """Say in the registry what became of a release; SageMaker's console shows it."""
        cycle = {"Stage": "Production", "StageStatus": status, "StageDescription": why[:1024]}
        _client("sagemaker").update_model_package(ModelPackageArn=self.arn(version), ModelLifeCycle=cycle)

    # ---- Records and messages
    def entries(self) -> list[Entry]:
        """Return what the keys of all records say."""
        pages = _client("s3").get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=PREFIX)
        return [entry for key in pages.search("Contents[].Key") if key and (entry := Entry.of(key))]

    def write(self, record: Record) -> bool:
        """Write a record; return False where it was written before."""
        body = json.dumps(asdict(record), indent=1).encode()
        try:
            _client("s3").put_object(
                Bucket=self._bucket, Key=record.key, Body=body, ContentType="application/json", IfNoneMatch="*"
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "PreconditionFailed":
                raise
            return False
        return True

    def tell(self, subject: str, text: str) -> None:
        """Send a message to the alarm topic; `subject` is cut to what SNS takes."""
        _client("sns").publish(TopicArn=self._topic, Subject=subject[:100], Message=text)


def _reason(events: list[dict[str, Any]]) -> str:
    """Return why an operation failed, from its events, oldest first: the first resource that did, or the stack's."""
    for event in events:
        if event["ResourceStatus"].endswith("_FAILED") and event["ResourceType"] != _STACK:
            return f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', 'no reason given')}"
    for event in events:
        if event["ResourceStatus"].endswith("ROLLBACK_IN_PROGRESS") and event["ResourceType"] == _STACK:
            return str(event.get("ResourceStatusReason", ""))
    return ""
