"""The pipeline language: values, conditions, parameters and the order of steps."""

import json
from typing import Any

import pytest

from kennel.rehearsal.jobs.language import DefinitionError, Values, plan, resolve_parameters


@pytest.fixture
def values() -> Values:
    files = {
        "s3://b/e/evaluation.json": json.dumps({"metrics": {"accuracy": {"value": 0.97}}, "list": [1, {"a.b": 2}]})
    }
    found = Values({"Epochs": 3, "On": True}, {"PipelineExecutionId": "abc"}, lambda uri: files[uri].encode())
    found.properties["Prepare"] = {
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "data", "S3Output": {"S3Uri": "s3://b/data"}}]},
        "PropertyFiles": [{"PropertyFileName": "Evaluation", "S3Uri": "s3://b/e/evaluation.json"}],
    }
    return found


def _json(path: str) -> dict[str, Any]:
    return {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Prepare.PropertyFiles.Evaluation"}, "Path": path}}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ({"Get": "Parameters.Epochs"}, 3),
        ({"Get": "Execution.PipelineExecutionId"}, "abc"),
        ({"Get": "Steps.Prepare.ProcessingOutputConfig.Outputs['data'].S3Output.S3Uri"}, "s3://b/data"),
        ({"Get": "Steps.Prepare.ProcessingOutputConfig.Outputs[0].OutputName"}, "data"),
        ({"Std:Join": {"On": "/", "Values": ["a", {"Get": "Parameters.Epochs"}]}}, "a/3"),
        ({"Std:Join": {"On": "", "Values": [{"Get": "Parameters.On"}]}}, "true"),
        ({"Std:Join": {"On": "-", "Values": [{"Std:Join": {"On": "", "Values": ["x", "y"]}}, 1]}}, "xy-1"),
        (_json("metrics.accuracy.value"), 0.97),
        (_json("list[1]['a.b']"), 2),
        ({"plain": [{"Get": "Parameters.Epochs"}], "two": 2}, {"plain": [3], "two": 2}),
    ],
)
def test_an_expression_becomes_its_value(values: Values, expression: Any, expected: Any) -> None:
    assert values.resolve(expression) == expected


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ({"Get": "Parameters.Nothing"}, "no 'Nothing' in \\(Epochs, On\\)"),
        ({"Get": "Steps.Later.Arn"}, "no 'Later'"),
        ({"Get": "Elsewhere.X"}, "begins with none of Parameters, Execution, Steps"),
        (_json("metrics.loss"), "no 'loss' in \\(accuracy\\)"),
        ({"Get": "Parameters.Epochs["}, "cannot be read"),
    ],
)
def test_an_expression_that_names_nothing_says_what_there_is(values: Values, expression: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        values.resolve(expression)


def _two(kind: str, left: Any, right: Any) -> dict[str, Any]:
    return {"Type": kind, "LeftValue": left, "RightValue": right}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (_two("Equals", {"Get": "Parameters.Epochs"}, 3), True),
        (_two("Equals", "a", "b"), False),
        (_two("GreaterThan", 3, 3), False),
        (_two("GreaterThan", 4, 3), True),
        (_two("GreaterThanOrEqualTo", 3, 3), True),
        (_two("GreaterThanOrEqualTo", _json("metrics.accuracy.value"), 0.98), False),
        (_two("LessThanOrEqualTo", 3, 3), True),
        (_two("LessThanOrEqualTo", 4, 3), False),
        ({"Type": "Or", "Conditions": [_two("Equals", 1, 2), _two("Equals", 1, 1)]}, True),
        ({"Type": "Or", "Conditions": [_two("Equals", 1, 2)]}, False),
    ],
)
def test_a_condition_compares_as_sagemaker_does(values: Values, condition: Any, expected: bool) -> None:
    assert values.is_true(condition) is expected


def test_a_condition_of_unlike_things_is_an_error(values: Values) -> None:
    with pytest.raises(DefinitionError, match="GreaterThan cannot compare 'high' with 3"):
        values.is_true(_two("GreaterThan", "high", 3))
    with pytest.raises(DefinitionError, match="Conditions of type Near cannot be rehearsed"):
        values.is_true(_two("Near", 1, 2))


_DECLARED = {
    "Parameters": [
        {"Name": "Data", "Type": "String"},
        {"Name": "Count", "Type": "Integer", "DefaultValue": 1},
        {"Name": "Rate", "Type": "Float", "DefaultValue": 0.5},
        {"Name": "Kind", "Type": "String", "DefaultValue": "a", "EnumValues": ["a", "b"]},
    ]
}


def test_parameters_take_their_defaults_and_types() -> None:
    given = {"Data": "7", "Rate": "1e-3"}
    assert resolve_parameters(_DECLARED, given) == {"Data": "7", "Count": 1, "Rate": 0.001, "Kind": "a"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"Data": "x", "Count": "1.5"}, "Count must be of type Integer, not '1.5'"),
        ({"Data": "x", "Rate": "fast"}, "Rate must be of type Float"),
        ({"Data": "x", "Kind": "c"}, "Kind must be one of a, b, not 'c'"),
    ],
)
def test_a_wrong_parameter_is_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        resolve_parameters(_DECLARED, given)


def test_a_type_of_parameter_that_no_template_uses_is_refused() -> None:
    with pytest.raises(DefinitionError, match="type Boolean cannot be rehearsed"):
        resolve_parameters({"Parameters": [{"Name": "Fast", "Type": "Boolean", "DefaultValue": True}]}, {})


def _step(name: str, *needs: str, reads: str = "") -> dict[str, Any]:
    arguments = {"ErrorMessage": {"Get": f"Steps.{reads}.Arn"}} if reads else {}
    return {"Name": name, "Type": "Fail", "DependsOn": list(needs), "Arguments": arguments}


def test_a_step_comes_after_what_it_names_and_after_what_it_reads() -> None:
    steps = [_step("C", "B"), _step("B", reads="A"), _step("A")]
    assert [item.name for item in plan({"Steps": steps})] == ["A", "B", "C"]


def test_a_condition_waits_for_what_it_compares_but_not_for_what_its_branches_read() -> None:
    inner = _step("Inner", reads="Late")
    arguments = {"Conditions": [_two("Equals", {"Get": "Steps.Early.Arn"}, 1)], "IfSteps": [inner], "ElseSteps": []}
    condition = {"Name": "If", "Type": "Condition", "Arguments": arguments}
    found = {item.name: item for item in plan({"Steps": [condition, _step("Early"), _step("Late", "If")]})}
    assert found["If"].needs == {"Early"}
    assert found["Inner"].needs == {"Late", "If"}
    assert found["Inner"].branch == ("If", True)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([_step("A", "B"), _step("B", "A")], "in a cycle: "),
        ([_step("A"), _step("A")], "Two steps are named 'A'"),
        ([_step("A", "Z")], "A depends on Z, which does not exist"),
    ],
)
def test_a_plan_that_cannot_work_says_why(steps: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        plan({"Steps": steps})
