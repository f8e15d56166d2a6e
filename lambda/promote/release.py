"""Which of the waiting approvals is released, and whether the stack can take it now."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from promote import aws
from promote.aws import Stack, StackBroken, StackBusy

PACKAGE, APPROVED_AT = "ModelPackageArn", "ApprovedAt"  # the stack's parameters
ALARMS = "RollbackAlarmArns"  # the stack's output; absent before the first release and where there is no canary

_READY = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE")
# In which the parameters are already the new ones.
_FORWARD = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")


@dataclass(frozen=True)
class Approval:
    """`model_package` was approved at `approved_at`, in UTC such as 2026-11-30T16:30:00.000Z."""

    model_package: str
    approved_at: str

    @property
    def token(self) -> str:
        """Return the release's name, which CloudFormation puts into each event of its update."""
        digits = "".join(each for each in self.approved_at if each.isdigit())
        return f"release-{self.model_package.rpartition('/')[2]}-{digits}"


def release(approvals: Sequence[Approval], stack_name: str, monitoring_minutes: int) -> dict[str, Any]:
    """Begin to release the newest approval that still holds; the others are superseded.

    Return what was done: `action` is released, unchanged or ignored. Raise PromoteError.
    """
    newest_first = sorted(approvals, key=lambda each: each.approved_at)[::-1]
    newest = next((each for each in newest_first if aws.is_approved(each.model_package)), None)
    if newest is None:
        return {"action": "ignored", "reason": "none of the packages is approved any longer"}
    superseded = sorted({each.model_package for each in approvals} - {newest.model_package})
    return {**_release(newest, stack_name, monitoring_minutes), "superseded": superseded}


def _release(approval: Approval, stack_name: str, monitoring_minutes: int) -> dict[str, Any]:
    stack = aws.describe(stack_name)
    done = {
        "stack": stack_name,
        "model_package": approval.model_package,
        "approved_at": approval.approved_at,
        "status_before": stack.status,
    }
    if stack.parameters.get(PACKAGE) == approval.model_package and stack.status in _FORWARD:
        return {"action": "unchanged", **done}
    # While it is rolled back a stack still shows the parameters that it is about to lose.
    if stack.status in (*_READY, *_FORWARD) and approval.approved_at < stack.parameters.get(APPROVED_AT, ""):
        return {"action": "ignored", "reason": "a later approval was released already", **done}
    _require_ready(stack)
    # An alarm that rings already says nothing of the new model, which may be the one that mends it.
    alarms = stack.outputs[ALARMS].split(",") if ALARMS in stack.outputs else []
    watched = aws.quiet_alarms(alarms) if alarms else []
    changes = {PACKAGE: approval.model_package, APPROVED_AT: approval.approved_at}
    has_begun = aws.update(stack, changes, approval.token, watched, monitoring_minutes)
    left_out = sorted(set(alarms) - set(watched))
    return {"action": "released" if has_begun else "unchanged", **done, "alarms_left_out": left_out}


def _require_ready(stack: Stack) -> None:
    if stack.status.endswith("_IN_PROGRESS"):
        raise StackBusy(f"{stack.name} is {stack.status}; the approval will come again.")
    if stack.status not in _READY:
        reason = stack.reason or "no reason given"
        again = "The approval is tried again for some time; once it is a dead letter, approve the package again"
        raise StackBroken(f"{stack.name} is {stack.status} ({reason}); {_cure(stack.status)}. {again}.")
    if missing := {PACKAGE, APPROVED_AT} - set(stack.parameters):
        raise StackBroken(f"{stack.name} has no parameter {min(missing)}; deploy the hosting stack again.")


def _cure(status: str) -> str:
    if status == "UPDATE_ROLLBACK_FAILED":
        return "continue the rollback (aws cloudformation continue-update-rollback)"
    if status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"):
        return "its first deployment failed: delete it and deploy it again"
    return "repair it"
