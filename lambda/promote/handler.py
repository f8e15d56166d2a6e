"""Lambda's entry point: the approvals that wait in the queue in, at most one release begun.

A release that cannot begin fails the invocation. Then all of its messages come again after the queue's visibility
timeout, and the alarm rings once they have come too often.
"""

import json
import os
import re
from datetime import UTC, datetime
from typing import Any

from promote.release import Approval, release

_ARN = re.compile(r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:model-package/([A-Za-z0-9-]{1,63})/[0-9]+")


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Return what was done. Raise PromoteError, and what boto3 raises."""
    request_id = str(getattr(context, "aws_request_id", ""))
    try:
        approvals = approvals_in(event, os.environ["MODEL_PACKAGE_GROUP"])
        done = release(approvals, os.environ["HOSTING_STACK"], int(os.environ["MONITORING_MINUTES"]))
    except Exception as error:
        _log({"level": "ERROR", "request_id": request_id, "error": f"{type(error).__name__}: {error}"})
        raise
    _log({"level": "INFO", "request_id": request_id, **done})
    return done


def approvals_in(event: Any, group: str) -> list[Approval]:
    """Return the approvals of packages of `group` in an event of SQS, in the queue's order.

    A message that is none is passed over: if it failed the invocation, those behind it would have to wait.
    """
    records = event.get("Records") if isinstance(event, dict) else None
    records = records if isinstance(records, list) else []
    bodies: list[Any] = [each.get("body") for each in records if isinstance(each, dict)]
    found = []
    for body in bodies:
        try:
            message = json.loads(body)
            found.append(Approval(_arn(message["model_package"], group), _utc(message["approved_at"])))
        except (ValueError, TypeError, LookupError, ArithmeticError, OSError) as error:
            _log({"level": "ERROR", "error": f"no approval: {type(error).__name__}: {error}", "body": str(body)[:1000]})
    return found


def _arn(value: Any, group: str) -> str:
    found = _ARN.fullmatch(value)
    # SageMaker writes names in lower case into its ARNs.
    if not found or found[1].lower() != group.lower():
        raise ValueError(f"{value!r} is no versioned model package of {group}")
    return str(value)


def _utc(value: Any) -> str:
    """Return a time of SageMaker's events, a text or milliseconds since 1970, as the stack's parameter takes it."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value / 1000, UTC)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _log(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
