"""What EventBridge tells about model packages."""

import re
from collections.abc import Mapping
from typing import Any

from promote.errors import InvalidEvent

_ARN = re.compile(r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:model-package/([A-Za-z0-9-]{1,63})/[0-9]+")


def reason_to_ignore(event: Any, group: str) -> str | None:
    """Why this event is no approval in `group`, or None if it is one."""
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


def package_arn(event: Mapping[str, Any], group: str) -> str:
    """The approved package's; raises InvalidEvent when it is none of `group`."""
    arn = event["detail"].get("ModelPackageArn")
    found = _ARN.fullmatch(arn) if isinstance(arn, str) else None
    # SageMaker writes names in lower case into its ARNs.
    if not found or found[1].lower() != group.lower():
        raise InvalidEvent(f"The event approves {arn!r}, which is no versioned model package of {group}.")
    return str(arn)
