"""Lambda's entry point, once a minute: while the hosting stack is updated, ask its endpoint and count wrong answers.

Contract: docs/contracts/evaluation.md (the probes) and promote-and-unregister.md (the function).
"""

import itertools
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from probe import aws

# A minute's photos, sent side by side: a model that does not answer must not keep the others from being asked.
_PHOTOS = 60
_AT_A_TIME = 20


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Return what was done. Raise what boto3 raises."""
    done = probe(os.environ["HOSTING_STACK"], os.environ["ENDPOINT_NAME"])
    print(json.dumps({"level": "INFO", **done}), flush=True)
    return done


def probe(stack: str, endpoint: str) -> dict[str, Any]:
    """Return what was done: `action` is idle, or probed with the counts of the new model's answers."""
    status, package = aws.release_of(stack)
    if status != "UPDATE_IN_PROGRESS" or not package:
        return {"action": "idle"}
    probes = aws.probes_of(package)
    if not probes:
        return {"action": "idle", "reason": "the model's evaluation has left no probes", "model_package": package}
    chosen = list(itertools.islice(itertools.cycle(probes), _PHOTOS))
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        outcomes = Counter(pool.map(lambda one: _outcome(endpoint, package, one), chosen))
    aws.publish(package, right=outcomes["right"], wrong=outcomes["wrong"])
    return {"action": "probed", "model_package": package, **outcomes}


def _outcome(endpoint: str, package: str, one: aws.Probe) -> str:
    """Return right or wrong for an answer of the new model; old for one of another, failed for none."""
    answer = aws.ask(endpoint, one.photo)
    if answer is None:
        return "failed"  # which SageMaker counts itself
    if answer.get("model") != package:
        return "old"
    return "right" if aws.best_label(answer) == one.label else "wrong"
