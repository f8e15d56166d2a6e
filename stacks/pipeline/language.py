"""The few expressions and step kinds of SageMaker's pipeline language that the definition uses."""

from typing import Any

Step = dict[str, Any]


def get(path: str) -> dict[str, str]:
    """A value that is known when the pipeline runs: a parameter, a step's property, an execution variable."""
    return {"Get": path}


def join(separator: str, *values: Any) -> dict[str, Any]:
    """Text made of values; it also turns a number into the string that a hyperparameter must be."""
    return {"Std:Join": {"On": separator, "Values": list(values)}}


def read(step: str, file: str, path: str) -> dict[str, Any]:
    """The value at `path` (`a.b.c`) of a JSON file that the processing step `step` declares as property file `file`."""
    return {"Std:JsonGet": {"PropertyFile": get(f"Steps.{step}.PropertyFiles.{file}"), "Path": path}}


def execution_id() -> dict[str, str]:
    """The id of the execution."""
    return get("Execution.PipelineExecutionId")


def compare(how: str, left: Any, right: Any) -> dict[str, Any]:
    """A comparison: `how` is Equals, GreaterThan, GreaterThanOrEqualTo or LessThanOrEqualTo."""
    return {"Type": how, "LeftValue": left, "RightValue": right}


def condition(name: str, conditions: list[Any], if_steps: list[Step], else_steps: list[Step]) -> Step:
    """A step that goes on with `if_steps` when all conditions hold, else with `else_steps`."""
    arguments = {"Conditions": conditions, "IfSteps": if_steps, "ElseSteps": else_steps}
    return {"Name": name, "Type": "Condition", "Arguments": arguments}
