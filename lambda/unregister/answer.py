"""The answer that CloudFormation waits for, put where it said."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

_TRIES = 5
_TIMEOUT_SECONDS = 10.0
_LONGEST_REASON = 1000  # characters; CloudFormation takes 4096 bytes for the whole answer


def answer(event: Mapping[str, Any], status: str, reason: str) -> None:
    """Say SUCCESS or FAILED; raises OSError when CloudFormation's store cannot be reached within 65 s."""
    group = event.get("ResourceProperties", {}).get("ModelPackageGroupName", "unknown")
    said = {
        "Status": status,
        "Reason": reason[:_LONGEST_REASON],
        # The same for ever: another id would make CloudFormation delete what it takes for the old resource.
        "PhysicalResourceId": event.get("PhysicalResourceId") or f"models-of-{group}",
        **{name: event.get(name, "") for name in ("StackId", "RequestId", "LogicalResourceId")},
    }
    _put(event["ResponseURL"], json.dumps(said).encode())


def _put(url: str, body: bytes) -> None:
    for wait in (*(2**i for i in range(_TRIES - 1)), None):
        # The URL is signed for an empty content type, and urllib would set one.
        request = urllib.request.Request(url, body, {"Content-Type": ""}, method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
                return
        except OSError as error:  # urllib's errors are OSErrors too
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            if refused or wait is None:
                raise
            time.sleep(wait)
