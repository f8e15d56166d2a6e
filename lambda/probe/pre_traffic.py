"""CodeDeploy's hook before traffic: the function's new version is asked what photos with known answers show.

Contract: docs/contracts/promote-and-unregister.md.
"""

import base64
import itertools
import json
import os
import time
from collections import Counter
from typing import Any

from probe import aws

# One after the other, so that one environment gets most of them: some faults show only after a hundred calls.
_PHOTOS = 150
_MOST_WRONG = 3
# Where the endpoint itself fails, more photos say nothing more about the function.
_MOST_EXCUSED = 10
# The smallest GIF: where no model is released, or one without probes, it only shows that the function answers.
_PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Tell CodeDeploy whether the new version may have traffic, and return what was found. Raise what boto3 raises."""
    done: dict[str, Any] = {"status": "Failed"}
    try:
        done = judge(os.environ["NEW_VERSION"], os.environ["HOSTING_STACK"], os.environ["ENDPOINT_NAME"])
    finally:  # otherwise CodeDeploy would wait for an hour
        print(json.dumps({"level": "INFO" if done["status"] == "Succeeded" else "ERROR", **done}), flush=True)
        aws.report(event["DeploymentId"], event["LifecycleEventHookExecutionId"], done["status"])
    return done


def judge(version: str, stack: str, endpoint: str) -> dict[str, Any]:
    """Return the `status` for CodeDeploy with the counts of right, wrong and excused answers.

    Excused are documented answers to what the endpoint itself does not get right within the time either.
    """
    _, package = aws.release_of(stack)
    probes = aws.probes_of(package) if package else ()
    if not probes:
        answer, _ = aws.call(version, _PIXEL)
        return {"status": _status(_is_documented(answer)), "model_package": package, "answer": answer}
    longest = int(os.environ["LONGEST_MILLISECONDS"]) / 1000
    counts: Counter[str] = Counter()
    for one in itertools.islice(itertools.cycle(probes), _PHOTOS):
        counts[_outcome(version, endpoint, one, longest)] += 1
        if counts["wrong"] > _MOST_WRONG or counts["excused"] >= _MOST_EXCUSED:
            break
    return {"status": _status(counts["wrong"] <= _MOST_WRONG), "model_package": package, **counts}


def _status(holds: bool) -> str:
    return "Succeeded" if holds else "Failed"


def _outcome(version: str, endpoint: str, one: aws.Probe, longest: float) -> str:
    answer, seconds = aws.call(version, one.photo)
    found = (answer or {}).get("predictions") or [{}]
    if found[0].get("label") == one.label and seconds <= longest:
        return "right"
    if not _is_documented(answer):
        return "wrong"
    began = time.monotonic()
    direct = aws.ask(endpoint, one.photo)
    is_fine = direct is not None and aws.best_label(direct) == one.label and time.monotonic() - began <= longest
    return "wrong" if is_fine else "excused"


def _is_documented(answer: dict[str, Any] | None) -> bool:
    """Return whether it is what callers may get of a sound function: no crash and no internal error."""
    if answer is None:
        return False
    return "predictions" in answer or answer.get("error", {}).get("code") not in (None, "internal_error")
