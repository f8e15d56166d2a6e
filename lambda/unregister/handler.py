"""CloudFormation's request in, its answer out: always one, since a stack waits for what it does not hear of."""

import json
from collections.abc import Mapping
from typing import Any

from unregister.answer import answer
from unregister.empty import act


def handler(event: Mapping[str, Any], context: Any) -> None:
    """Lambda's entry point; raises only when the answer could not be delivered, and then Lambda asks again."""
    try:
        status, reason = "SUCCESS", act(event, lambda: context.get_remaining_time_in_millis() / 1000)
    except Exception as error:
        status, reason = "FAILED", f"{type(error).__name__}: {error}"
    line = {"level": "INFO" if status == "SUCCESS" else "ERROR", "request": event.get("RequestType"), "reason": reason}
    print(json.dumps(line), flush=True)
    answer(event, status, reason)
