"""The expressions, condition steps and retry policies of SageMaker's pipeline language that the definition uses."""

from typing import Any

Step = dict[str, Any]


def get(path: str) -> dict[str, str]:
    """Return a reference to what is known when the pipeline runs: a parameter, a step's property, a variable."""
    return {"Get": path}


def join(separator: str, *values: Any) -> dict[str, Any]:
    """Return the text made of `values`; it also turns a number into the string that a hyperparameter must be."""
    return {"Std:Join": {"On": separator, "Values": list(values)}}


def read(step: str, file: str, path: str) -> dict[str, Any]:
    """Return the value at `path` (`a.b.c`) of the JSON file that step `step` declares as property file `file`."""
    return {"Std:JsonGet": {"PropertyFile": get(f"Steps.{step}.PropertyFiles.{file}"), "Path": path}}


EXECUTION_ID = get("Execution.PipelineExecutionId")


def compare(how: str, left: Any, right: Any) -> dict[str, Any]:
    """Return a comparison; `how` is Equals, GreaterThan, GreaterThanOrEqualTo or LessThanOrEqualTo."""
    return {"Type": how, "LeftValue": left, "RightValue": right}


def condition(name: str, conditions: list[Any], if_steps: list[Step], else_steps: list[Step]) -> Step:
    """Return a step that goes on with `if_steps` when all conditions hold, else with `else_steps`."""
    arguments = {"Conditions": conditions, "IfSteps": if_steps, "ElseSteps": else_steps}
    return {"Name": name, "Type": "Condition", "Arguments": arguments}


# A step is retried when the fault is AWS's own, or a lack of capacity.
SERVICE_RETRIES = {
    "ExceptionType": ["Step.SERVICE_FAULT", "Step.THROTTLING"],
    "IntervalSeconds": 15,
    "BackoffRate": 2.0,
    "MaxAttempts": 5,
}
JOB_RETRIES = [
    SERVICE_RETRIES,
    {"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "IntervalSeconds": 60, "BackoffRate": 2.0, "MaxAttempts": 2},
    {"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "IntervalSeconds": 300, "BackoffRate": 2.0, "ExpireAfterMin": 240},
    # The account's quota: another job may end within minutes, a higher quota does not come by waiting.
    {"ExceptionType": ["SageMaker.RESOURCE_LIMIT"], "IntervalSeconds": 60, "BackoffRate": 2.0, "ExpireAfterMin": 15},
]
