"""Asks the model, again if that may help, and always within the caller's time."""

import random
import time

from classify.deadline import Deadline
from classify.errors import EndpointProblem
from classify.sagemaker_runtime import Runtime

_ATTEMPTS = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds


def invoke(endpoint: str, body: bytes, kind: str, deadline: Deadline) -> bytes:
    """The container's answer; raises EndpointProblem's and BadPicture's kinds."""
    for attempt in range(_ATTEMPTS):
        try:
            return _once(endpoint, body, kind, deadline)
        except EndpointProblem as problem:
            pause = _pause(attempt)
            if not problem.again or attempt == _ATTEMPTS - 1 or pause >= deadline.left():
                raise
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _once(endpoint: str, body: bytes, kind: str, deadline: Deadline) -> bytes:
    answer = Runtime.of_environment().invoke(endpoint, body, kind, deadline)
    if answer.status < 300:
        return answer.body
    from classify import error_mapping as faults  # most sandboxes never see one

    raise faults.of_endpoint(answer)


def _pause(attempt: int) -> float:
    """Seconds; any length up to the bound, so that callers who failed together do not come back together."""
    return random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))
