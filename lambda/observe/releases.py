"""What each event means for a release. Everything is acted on before its record is written.

So a failed invocation, which Lambda repeats, leaves nothing undone, and an event whose record is there is done with.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from observe.aws import Stage
from observe.records import Entry, Record, Token, approved_again, last_live, parse_time, timestamp

Event = Mapping[str, Any]
Done = dict[str, Any]

# ModelLifeCycle's status for a release that failed, by the record's state.
_FAILED = {"rolled_back": "RolledBack", "failed": "Failed", "diverged": "Diverged"}


def log(line: Done) -> None:
    print(json.dumps(line), flush=True)


def approval(stage: Stage, event: Event) -> Done:
    """Record that a version was approved or rejected; what else changes of a package sends the same event."""
    detail = event["detail"]
    if "ModelApprovalStatus" not in detail.get("UpdatedModelPackageFields", ["ModelApprovalStatus"]):
        return _ignored("the approval did not change")
    if detail.get("ModelPackageStatus") != "Completed":
        return _ignored("the package is not complete")
    state = {"Approved": "approved", "Rejected": "rejected"}.get(detail["ModelApprovalStatus"])
    if state is None:
        return _ignored("neither approved nor rejected")
    version, at = int(detail["ModelPackageVersion"]), parse_time(detail.get("LastModifiedTime", event["time"]))
    by, why = _who(stage.package(version), at)
    record = Record(version=version, model_package=stage.arn(version), state=state, at=timestamp(at), by=by, why=why)
    return _recorded(stage, record)


def _who(package: Mapping[str, Any], at: datetime) -> tuple[str, str]:
    """Return who changed the package at that time and why; empty where it has changed again since."""
    if abs(package.get("LastModifiedTime", package["CreationTime"]) - at) >= timedelta(seconds=1):
        return "", ""
    user = package.get("LastModifiedBy") or package.get("CreatedBy") or {}
    return user.get("IamIdentity", {}).get("Arn", ""), package.get("ApprovalDescription", "")


def baking(stage: Stage, event: Event) -> Done:
    """Record that the new fleet has traffic and its alarms are watched."""
    pending = event["detail"].get("PendingDeploymentSummary", {})
    statuses = [one for variant in pending.get("ProductionVariants", []) for one in variant.get("VariantStatus", [])]
    status = next((one for one in statuses if one["Status"] == "Baking"), None)
    if status is None:
        return _ignored("nothing bakes")
    text = stage.newest_token()
    token = Token.of(text)
    if token is None or stage.declared_config() != pending["EndpointConfigName"].lower():
        return _ignored("not of the release that is under way")
    at = parse_time(status.get("StartTime", event["time"]))
    return _recorded(stage, replace(_of(stage, text, token, at, "baking"), why=status.get("StatusMessage", "")))


def alarm(stage: Stage, event: Event) -> Done:
    """Tell that an alarm of the served model rings, during a release or after it."""
    name, state = event["detail"]["alarmName"], event["detail"]["state"]
    stage.tell(f"{stage.endpoint}: {name} rings", f"{state.get('reason', '')}\n\nAt {event['time']}.")
    return {"action": "told", "alarm": name}


def stack_status(stage: Stage, event: Event) -> Done:
    """Record what became of the release that updated the hosting stack; of another update tell only a failure."""
    detail, at = event["detail"], parse_time(event["time"])
    status, text = detail["status-details"]["status"], detail.get("client-request-token", "")
    token = Token.of(text)
    if status == "UPDATE_IN_PROGRESS":
        if token is None:
            return _ignored("an update that releases nothing")
        return _recorded(stage, _of(stage, text, token, at, "releasing"))
    operation = stage.operation(text)
    # Later the endpoint is what another update made of it, which is judged by its own event.
    is_at_rest = operation.is_newest and stage.stack_status() == status
    differs = is_at_rest and stage.served_config() != stage.declared_config()
    if status == "UPDATE_COMPLETE" and not differs:
        if token is None:
            return _ignored("an update that releases nothing")
        return _went_live(stage, _of(stage, text, token, at, "live"), "" if is_at_rest else _UNCHECKED)
    rang = stage.alarm_that_rang(operation.begun, at + timedelta(seconds=1))
    state = "diverged" if differs else "rolled_back" if rang else "failed"
    why = _why(stage, status, operation.reason, differs)
    if token is None:
        return _deployment_failed(stage, state, f"{why}. Alarm: {rang or 'none'}")
    record = replace(_of(stage, text, token, at, state), why=why, alarm=rang)
    return _ended_badly(stage, record, token, can_be_cured=not status.endswith("_FAILED"))


_UNCHECKED = "Another update began before the endpoint could be compared with the stack."


def _of(stage: Stage, text: str, token: Token, at: datetime, state: str) -> Record:
    return Record(
        version=token.version, model_package=stage.arn(token.version), state=state, at=timestamp(at), token=text
    )


def _why(stage: Stage, status: str, reason: str, differs: bool) -> str:
    said = f"{stage.stack} is {status}" + (f": {reason}" if reason else "")
    if differs:
        said = f"{said}, but the endpoint serves another configuration: SageMaker has gone back by itself"
    if status.endswith("_FAILED"):
        return f"{said}. Continue the rollback: aws cloudformation continue-update-rollback --stack-name {stage.stack}"
    return said


def _went_live(stage: Stage, record: Record, why: str) -> Done:
    entries = stage.entries()
    if _is_written(record, entries):
        return _doubled(record)
    before = max((entry for entry in entries if entry.state == "live"), default=None)
    stage.set_life_cycle(record.version, "Released", f"Live since {record.at}.")
    if before and before.version != record.version:
        stage.set_life_cycle(before.version, "Superseded", f"Version {record.version} is live since {record.at}.")
    stage.tell(
        f"{stage.endpoint}: version {record.version} is live", f"{record.model_package}\nLive since {record.at}."
    )
    return _recorded(stage, replace(record, why=why))


def _ended_badly(stage: Stage, record: Record, token: Token, can_be_cured: bool) -> Done:
    """Reject the version, so that nothing releases it again by itself; tell; cure an endpoint that serves another."""
    entries = stage.entries()
    if _is_written(record, entries):
        return _doubled(record)
    log({"level": "ERROR", "endpoint": stage.endpoint, **asdict(record)})  # an alarm counts those that are `diverged`
    before = last_live(entries, but=record.version) if record.state == "diverged" and can_be_cured else None
    rejects = not approved_again(entries, token)
    stage.tell(f"{stage.endpoint}: {_headline(record)}", _message(record, rejects, before))
    if rejects:
        why = f"{record.alarm} rang. {record.why}" if record.alarm else record.why
        stage.set_approval(record.version, "Rejected", f"{record.state}: {why}")
        stage.set_life_cycle(record.version, _FAILED[record.state], why)
    if before is not None:
        # An approval is an event only where the status changes.
        stage.set_approval(before, "PendingManualApproval", f"Version {record.version} diverged.")
        stage.set_approval(before, "Approved", f"Released again in place of version {record.version}, which diverged.")
    return _recorded(stage, record)


def _headline(record: Record) -> str:
    return {
        "rolled_back": f"version {record.version} was rolled back by {record.alarm}",
        "failed": f"the release of version {record.version} failed",
        "diverged": f"DIVERGED, after version {record.version} the endpoint serves something else",
    }[record.state]


def _message(record: Record, rejects: bool, before: int | None) -> str:
    lines = [record.model_package, f"{record.why}.", f"Alarm: {record.alarm or 'none'}", f"At: {record.at}"]
    if rejects:
        lines.append(f"It is rejected now: nothing releases it until somebody approves version {record.version} again.")
    if before is not None:
        lines.append(f"Version {before}, which was live before, is released again.")
    elif record.state == "diverged":
        lines.append("No version is released again by itself: approve one.")
    return "\n".join(lines)


def _deployment_failed(stage: Stage, state: str, why: str) -> Done:
    """Tell of an update that was no release; the served version is not at fault, so there is no record of it."""
    log({"level": "ERROR", "endpoint": stage.endpoint, "state": state, "why": why})
    cure = "Take the change back and deploy again, or release another version.\n" if state == "diverged" else ""
    stage.tell(f"{stage.endpoint}: a deployment of {stage.stack} {state}", f"{why}.\n{cure}")
    return {"action": "told", "why": why}


def _recorded(stage: Stage, record: Record) -> Done:
    return {"action": "recorded", "record": record.key} if stage.write(record) else _doubled(record)


def _is_written(record: Record, entries: list[Entry]) -> bool:
    return Entry.of(record.key) in entries


def _doubled(record: Record) -> Done:
    return {"action": "doubled", "record": record.key}


def _ignored(reason: str) -> Done:
    return {"action": "ignored", "reason": reason}
