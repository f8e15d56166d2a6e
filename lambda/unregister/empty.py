"""When the group is emptied, and how far within the function's time."""

from collections.abc import Callable, Mapping
from typing import Any

from unregister import aws

# Kept for one last call with all its tries (135 s) and for the answer (under 70 s).
_RESERVE_SECONDS = 240.0


class UnregisterError(Exception):
    """The text is what CloudFormation shows as the reason of the failure."""


def act(event: Mapping[str, Any], seconds_left: Callable[[], float]) -> str:
    """What was done, in words. Raises UnregisterError, and what boto3 raises."""
    asked = event.get("RequestType")
    if asked in ("Create", "Update"):
        return "nothing to do before the stack is deleted"
    if asked != "Delete":
        raise UnregisterError(f"CloudFormation asked for {asked!r}, which is none of Create, Update and Delete.")
    status = aws.stack_status(event["StackId"])
    if status != "DELETE_IN_PROGRESS":
        # The resource left the template, as when a stage ceases to be removable: that must not cost the models.
        return f"models kept: the stack is {status}, not being deleted"
    return f"deleted {_empty(event['ResourceProperties']['ModelPackageGroupName'], seconds_left)} model packages"


def _empty(group: str, seconds_left: Callable[[], float]) -> int:
    # All are listed before the first goes: a deletion between two pages could make the second skip some.
    arns = list(aws.packages(group))
    for done, arn in enumerate(arns):
        if seconds_left() < _RESERVE_SECONDS:
            raise UnregisterError(f"{len(arns) - done} model packages of {group} are left; delete the stack again.")
        aws.delete(arn)
    return len(arns)
