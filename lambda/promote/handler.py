"""EventBridge's event in, what was done out. A release that cannot begin fails, so that Lambda asks again."""

import json
import os
from typing import Any

from promote.release import promote


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Lambda's entry point; raises PromoteError, and what boto3 raises."""
    request_id = str(getattr(context, "aws_request_id", ""))
    try:
        done = promote(event, os.environ["HOSTING_STACK"], os.environ["MODEL_PACKAGE_GROUP"])
    except Exception as error:
        _log({"level": "ERROR", "request_id": request_id, "error": f"{type(error).__name__}: {error}"})
        raise
    _log({"level": "INFO", "request_id": request_id, **done})
    return done


def _log(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
