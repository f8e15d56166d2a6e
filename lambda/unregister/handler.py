"""Lambda's entry point: empties the model package group when its stack is deleted, and answers CloudFormation.

CloudFormation always gets an answer, since a stack waits an hour for a custom resource that does not answer.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from unregister import aws

_ATTEMPTS = 5
_TIMEOUT_SECONDS = 10.0
_LONGEST_REASON = 1000  # characters; CloudFormation takes 4096 bytes for the whole answer
# For one last call with all its attempts (135 s) and for the answer (under 70 s).
_RESERVE_SECONDS = 240.0


class UnregisterError(Exception):
    """The text is what CloudFormation shows as the reason of the failure."""


def handler(event: Mapping[str, Any], context: Any) -> None:
    """Do what CloudFormation requests. Raise OSError only when the answer cannot be delivered: Lambda then retries."""
    try:
        status, reason = "SUCCESS", _act(event, lambda: context.get_remaining_time_in_millis() / 1000)
    except Exception as error:
        status, reason = "FAILED", f"{type(error).__name__}: {error}"
    line = {"level": "INFO" if status == "SUCCESS" else "ERROR", "request": event.get("RequestType"), "reason": reason}
    print(json.dumps(line), flush=True)
    _answer(event, status, reason)


def _act(event: Mapping[str, Any], seconds_left: Callable[[], float]) -> str:
    """Return what was done, as a phrase. Raise UnregisterError, and what boto3 raises."""
    request = event.get("RequestType")
    if request in ("Create", "Update"):
        return "nothing to do before the stack is deleted"
    if request != "Delete":
        raise UnregisterError(f"CloudFormation requested {request!r}, which is none of Create, Update and Delete.")
    status = aws.stack_status(event["StackId"])
    if status != "DELETE_IN_PROGRESS":
        # The resource left the template, as when a stage ceases to be removable: that must not cost the models.
        return f"models kept: the stack is {status}, not being deleted"
    return f"deleted {_empty(event['ResourceProperties']['ModelPackageGroupName'], seconds_left)} model packages"


def _empty(group: str, seconds_left: Callable[[], float]) -> int:
    # All are listed before the first is deleted: a deletion between two pages could make the second skip some.
    arns = list(aws.packages(group))
    for done, arn in enumerate(arns):
        if seconds_left() < _RESERVE_SECONDS:
            raise UnregisterError(f"{len(arns) - done} model packages of {group} are left; delete the stack again.")
        aws.delete(arn)
    return len(arns)


def _answer(event: Mapping[str, Any], status: str, reason: str) -> None:
    """Report SUCCESS or FAILED. Raise OSError when CloudFormation's store cannot be reached within 65 s."""
    group = event.get("ResourceProperties", {}).get("ModelPackageGroupName", "unknown")
    answer = {
        "Status": status,
        "Reason": reason[:_LONGEST_REASON],
        # Always the same: another id would make CloudFormation delete what it takes for the old resource.
        "PhysicalResourceId": event.get("PhysicalResourceId") or f"models-of-{group}",
        **{name: event.get(name, "") for name in ("StackId", "RequestId", "LogicalResourceId")},
    }
    _put(event["ResponseURL"], json.dumps(answer).encode())


def _put(url: str, body: bytes) -> None:
    for pause in (*(2**i for i in range(_ATTEMPTS - 1)), None):
        # The URL is signed for an empty content type, and urllib would set one.
        request = urllib.request.Request(url, body, {"Content-Type": ""}, method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
                return
        except OSError as error:  # urllib's errors are OSErrors too
            is_refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            if is_refused or pause is None:
                raise
            time.sleep(pause)
