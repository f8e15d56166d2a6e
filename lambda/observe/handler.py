"""Lambda's entry point: what happens to a release is an event, and each event becomes a record.

An event that cannot be dealt with fails the invocation, so that Lambda tries again and the alarm rings. An event that
comes twice is dealt with once: the record is written last, under a key that follows from the event.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

from observe import releases
from observe.aws import Stage

_BY_KIND: Mapping[str, Callable[[Stage, Mapping[str, Any]], dict[str, Any]]] = {
    "SageMaker Model Package State Change": releases.approval,
    "CloudFormation Stack Status Change": releases.stack_status,
    "SageMaker Endpoint Deployment State Change": releases.baking,
    "CloudWatch Alarm State Change": releases.alarm,
}


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Return what was done. Raise what boto3 raises, and KeyError for an event that lacks what AWS documents."""
    request_id = str(getattr(context, "aws_request_id", ""))
    try:
        done = observe(event)
    except Exception as error:
        releases.log({"level": "ERROR", "request_id": request_id, "error": f"{type(error).__name__}: {error}"})
        raise
    releases.log({"level": "INFO", "request_id": request_id, **done})
    return done


def observe(event: Any) -> dict[str, Any]:
    """Return what was done: `action` is recorded, doubled, told or ignored."""
    kind = event.get("detail-type") if isinstance(event, dict) else None
    deal_with = _BY_KIND.get(str(kind))
    if deal_with is None:
        return {"action": "ignored", "reason": "not an event about a release"}
    return deal_with(Stage(os.environ), event)
