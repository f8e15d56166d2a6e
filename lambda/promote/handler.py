"""Lambda's entry point: releases the model package that an event approves.

A release that cannot begin fails the invocation, so that Lambda tries again and the alarm rings.
"""

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from promote import stack
from promote.stack import PromoteError, Stack, StackBroken, StackBusy

PARAMETER = "ModelPackageArn"

_ARN = re.compile(r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:model-package/([A-Za-z0-9-]{1,63})/[0-9]+")
_READY = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE")
# In which the parameters are already the new ones.
_FORWARD = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")


class InvalidEvent(PromoteError):
    """The event approves something that is no versioned model package of the group."""


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Return what was done. Raise PromoteError, and what boto3 raises."""
    request_id = str(getattr(context, "aws_request_id", ""))
    try:
        done = promote(event, os.environ["HOSTING_STACK"], os.environ["MODEL_PACKAGE_GROUP"])
    except Exception as error:
        _log({"level": "ERROR", "request_id": request_id, "error": f"{type(error).__name__}: {error}"})
        raise
    _log({"level": "INFO", "request_id": request_id, **done})
    return done


def promote(event: Any, stack_name: str, group: str) -> dict[str, Any]:
    """Return what was done: `action` is released, unchanged or ignored. Raise PromoteError."""
    if reason := _reason_to_ignore(event, group):
        return {"action": "ignored", "reason": reason}
    arn = _package_arn(event, group)
    found = stack.describe(stack_name)
    done = {"stack": stack_name, "model_package": arn, "status_before": found.status}
    if found.parameters.get(PARAMETER) == arn and found.status in _FORWARD:
        return {"action": "unchanged", **done}
    _require_ready(found)
    others = [key for key in found.parameters if key != PARAMETER]
    has_begun = stack.update(stack_name, PARAMETER, arn, others)
    return {"action": "released" if has_begun else "unchanged", **done}


def _reason_to_ignore(event: Any, group: str) -> str | None:
    """Return why this event is no approval in the group, or None if it is one."""
    detail = event.get("detail") if isinstance(event, dict) else None
    if not isinstance(detail, dict) or event.get("source") != "aws.sagemaker":
        return "not an event of SageMaker"
    if event.get("detail-type") != "SageMaker Model Package State Change":
        return "not about a model package"
    if detail.get("ModelPackageGroupName") != group:
        return "another model package group"
    if detail.get("ModelApprovalStatus") != "Approved":
        return "not approved"
    return None


def _package_arn(event: Mapping[str, Any], group: str) -> str:
    arn = event["detail"].get("ModelPackageArn")
    found = _ARN.fullmatch(arn) if isinstance(arn, str) else None
    # SageMaker writes names in lower case into its ARNs.
    if not found or found[1].lower() != group.lower():
        raise InvalidEvent(f"The event approves {arn!r}, which is no versioned model package of {group}.")
    return str(arn)


def _require_ready(found: Stack) -> None:
    if found.status.endswith("_IN_PROGRESS"):
        raise StackBusy(f"{found.name} is {found.status}; the event will come again.")
    if found.status not in _READY:
        raise StackBroken(
            f"{found.name} is {found.status} ({found.reason or 'no reason given'}); {_cure(found.status)}."
        )
    if PARAMETER not in found.parameters:
        raise StackBroken(f"{found.name} has no parameter {PARAMETER}; deploy the hosting stack again.")


def _cure(status: str) -> str:
    if status == "UPDATE_ROLLBACK_FAILED":
        return "continue the rollback (aws cloudformation continue-update-rollback), then approve the package again"
    if status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"):
        return "its first deployment failed: delete it, deploy it again, then approve the package again"
    return "repair it, then approve the package again"


def _log(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
