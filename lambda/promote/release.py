"""Whether and how an approved package becomes the one that is served."""

from typing import Any

from promote import events, stack
from promote.errors import StackBroken, StackBusy
from promote.stack import Stack

PARAMETER = "ModelPackageArn"

_READY = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE")
# In which the parameters are already the new ones.
_FORWARD = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")


def promote(event: Any, stack_name: str, group: str) -> dict[str, Any]:
    """What was done: `action` is released, unchanged or ignored. Raises PromoteError."""
    if reason := events.reason_to_ignore(event, group):
        return {"action": "ignored", "reason": reason}
    arn = events.package_arn(event, group)
    found = stack.describe(stack_name)
    done = {"stack": stack_name, "model_package": arn, "status_before": found.status}
    if found.parameters.get(PARAMETER) == arn and found.status in _FORWARD:
        return {"action": "unchanged", **done}
    _require_ready(found)
    others = [key for key in found.parameters if key != PARAMETER]
    begun = stack.update(stack_name, PARAMETER, arn, others)
    return {"action": "released" if begun else "unchanged", **done}


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
