"""The pipeline as SageMaker reads it: steps, branches, gates."""

from collections.abc import Iterator
from functools import reduce
from operator import eq, ge, getitem, gt, le
from typing import Any

import pytest

from stacks.pipeline.definition import BRANCHES
from tests.stacks.synthesized import Json, Synthesized, by_name, defaults, flat, resolved

SUFFIXES = ["", "Spot", "Tuned", "TunedSpot"]


COMPARE = {"GreaterThan": gt, "GreaterThanOrEqualTo": ge, "LessThanOrEqualTo": le, "Equals": eq}


def filled(value: Any, files: Json) -> Any:
    """`value` with every Std:JsonGet replaced by what the property file in `files` says."""
    if isinstance(value, list):
        return [filled(each, files) for each in value]
    if not isinstance(value, dict):
        return value
    if "Std:JsonGet" in value:
        content = files[value["Std:JsonGet"]["PropertyFile"]["Get"]]
        return reduce(getitem, value["Std:JsonGet"]["Path"].split("."), content)
    return {key: filled(each, files) for key, each in value.items()}


def holds(condition: Json, parameters: Json, files: Json) -> bool:
    """Whether a condition is true, as the service decides it."""
    if condition["Type"] == "Or":
        return any(holds(each, parameters, files) for each in condition["Conditions"])
    left, right = (resolved(filled(condition[side], files), parameters) for side in ("LeftValue", "RightValue"))
    return bool(COMPARE[condition["Type"]](left, right))


def names_in(value: Any) -> Iterator[str]:
    """Every step that an expression reads from."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "Get" and each.startswith("Steps."):
                yield each.split(".")[1]
            yield from names_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from names_in(each)


def test_no_condition_stands_within_a_condition_because_the_service_refuses_that(definition: Json) -> None:
    for step in definition["Steps"]:
        if step["Type"] == "Condition":
            inner = step["Arguments"]["IfSteps"] + step["Arguments"]["ElseSteps"]
            assert inner
            assert [each["Name"] for each in inner if each["Type"] == "Condition"] == []


def test_each_step_has_a_name_of_its_own(definition: Json) -> None:
    names = [step["Name"] for step in flat(definition["Steps"])]
    assert sorted(names) == sorted(set(names))


def test_steps_read_only_from_steps_of_their_own_branch_and_from_prepare(steps: dict[str, Json]) -> None:
    for name, step in steps.items():
        if step["Type"] == "Condition":
            continue
        read = set(names_in(step["Arguments"])) - {"Prepare"}
        suffixes = {
            other.removeprefix(kind)
            for other in read
            for kind in ("Train", "Tune", "Evaluate")
            if other.startswith(kind)
        }
        own = next(s for s in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(s))
        assert suffixes <= {own}, name
        assert read <= set(steps), name


@pytest.mark.parametrize(
    ("trials", "spot", "mode", "chosen"),
    [
        (0, "false", "whole", ""),
        (0, "true", "whole", "Spot"),
        (3, "false", "whole", "Tuned"),
        (3, "true", "whole", "TunedSpot"),
        (1, "false", "whole", "Tuned"),
        (0, "false", "head", ""),
        (3, "false", "head", ""),  # all trials of a head run in one job
        (3, "true", "head", "Spot"),
        (0, "false", "finetune", ""),
        (3, "true", "finetune", "Spot"),
    ],
)
def test_exactly_one_branch_is_chosen(steps: dict[str, Json], trials: int, spot: str, mode: str, chosen: str) -> None:
    given = {"TuneTrials": trials, "Spot": spot}
    report = {"Steps.Prepare.PropertyFiles.Preparation": {"mode": mode}}
    taken = [
        suffix
        for suffix in SUFFIXES
        if all(holds(each, given, report) for each in steps[f"Choose{suffix}"]["Arguments"]["Conditions"])
    ]
    assert taken == [chosen]


def test_the_conditions_file_is_what_prepare_writes(steps: dict[str, Json]) -> None:
    (file,) = steps["Prepare"]["PropertyFiles"]
    assert file == {"PropertyFileName": "Preparation", "OutputName": "report", "FilePath": "prepare.json"}
    outputs = {
        each["OutputName"]: each["S3Output"]["LocalPath"]
        for each in steps["Prepare"]["Arguments"]["ProcessingOutputConfig"]["Outputs"]
    }
    assert outputs["report"] == "/opt/ml/processing/output/report"


def test_a_branch_trains_or_tunes_and_then_evaluates(steps: dict[str, Json]) -> None:
    inner = {s: [each["Name"] for each in steps[f"Choose{s}"]["Arguments"]["IfSteps"]] for s in SUFFIXES}
    assert inner == {
        "": ["Train", "Evaluate"],
        "Spot": ["TrainSpot", "EvaluateSpot"],
        "Tuned": ["TuneTuned", "EvaluateTuned"],
        "TunedSpot": ["TuneTunedSpot", "EvaluateTunedSpot"],
    }
    assert [branch.suffix for branch in BRANCHES] == SUFFIXES


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("lower", "worst", "registered"), [(0.75, 0.1, True), (0.9, 0.9, True), (0.74, 0.9, False), (0.9, 0.09, False)]
)
def test_the_gate_wants_the_intervals_lower_end_and_the_worst_classes_to_reach_their_thresholds(
    definition: Json, steps: dict[str, Json], suffix: str, lower: float, worst: float, registered: bool
) -> None:
    metrics = {
        "accuracy": {"value": 0.99},
        "accuracy_lower": {"value": 0.98},
        "served_accuracy_lower": {"value": lower},
        "worst_classes_recall": {"value": worst},
    }
    report = {f"Steps.Evaluate{suffix}.PropertyFiles.Evaluation": {"metrics": metrics}}
    gate = steps[f"Gate{suffix}"]["Arguments"]
    assert all(holds(each, defaults(definition), report) for each in gate["Conditions"]) is registered
    assert [each["Name"] for each in gate["IfSteps"]] == [f"Register{suffix}"]
    (reject,) = gate["ElseSteps"]
    assert (reject["Name"], reject["Type"]) == (f"Reject{suffix}", "Fail")
    assert "Std:JsonGet" not in str(reject)  # nobody documents it within a text
    said = resolved(reject["Arguments"]["ErrorMessage"], defaults(definition))
    assert "is below AccuracyThreshold 0.75 or " in said
    assert "is below WorstClassesThreshold 0.1. " in said


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_gates_file_is_what_evaluate_writes(steps: dict[str, Json], suffix: str) -> None:
    evaluate = steps[f"Evaluate{suffix}"]
    (file,) = evaluate["PropertyFiles"]
    assert file == {"PropertyFileName": "Evaluation", "OutputName": "evaluation", "FilePath": "evaluation.json"}
    (output,) = evaluate["Arguments"]["ProcessingOutputConfig"]["Outputs"]
    assert output["OutputName"] == "evaluation"
    assert output["S3Output"]["LocalPath"] == "/opt/ml/processing/output/evaluation"


def test_a_tuned_model_is_the_best_trials(steps: dict[str, Json]) -> None:
    inputs = {
        each["InputName"]: each["S3Input"]["S3Uri"] for each in steps["EvaluateTuned"]["Arguments"]["ProcessingInputs"]
    }
    folder, best, file = inputs["model"]["Std:Join"]["Values"]
    assert folder == steps["TuneTuned"]["Arguments"]["TrainingJobDefinition"]["OutputDataConfig"]["S3OutputPath"]
    assert best == {"Get": "Steps.TuneTuned.BestTrainingJob.TrainingJobName"}
    assert file == "output/model.tar.gz"
    (container,) = steps["RegisterTuned"]["Arguments"]["InferenceSpecification"]["Containers"]
    assert container["ModelDataUrl"] == inputs["model"]


def test_what_is_cached_is_forgotten_before_the_bucket_drops_it(synth: Synthesized, stage: str) -> None:
    steps = by_name(synth.definition(stage))
    cached = {name for name, step in steps.items() if step.get("CacheConfig", {}).get("Enabled")}
    assert cached == {"Prepare", "Train", "TrainSpot", *(f"Evaluate{suffix}" for suffix in SUFFIXES)}
    assert {steps[name]["CacheConfig"]["ExpireAfter"] for name in cached} == {"P14D"}
    bucket = synth.resources(stage, "Data", "AWS::S3::Bucket")["Bucket83908E77"]["Properties"]
    (prepared,) = [each for each in bucket["LifecycleConfiguration"]["Rules"] if each.get("Prefix") == "prepared/"]
    assert prepared["ExpirationInDays"] > 14


@pytest.mark.parametrize(("stage", "status"), [("Dev", "Approved"), ("Prod", "PendingManualApproval")])
def test_dev_approves_by_itself_and_prod_waits_for_somebody(synth: Synthesized, stage: str, status: str) -> None:
    assert defaults(synth.definition(stage))["ApprovalStatus"] == status


def test_all_parameters_but_the_data_have_defaults_of_their_type(definition: Json) -> None:
    kinds = {"String": str, "Integer": int, "Float": float}
    without = [each["Name"] for each in definition["Parameters"] if "DefaultValue" not in each]
    assert without == ["DataManifest"]
    for each in definition["Parameters"]:
        if "DefaultValue" in each:
            assert type(each["DefaultValue"]) is kinds[each["Type"]], each["Name"]
            assert each["DefaultValue"] in each.get("EnumValues", [each["DefaultValue"]]), each["Name"]


def test_the_definition_is_far_from_the_services_limit(synth: Synthesized, stage: str) -> None:
    assert len(str(synth.definition(stage))) < 100_000  # characters, of 1,048,576
