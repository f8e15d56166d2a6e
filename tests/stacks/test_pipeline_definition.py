"""The pipeline as SageMaker reads it: steps, branches, gates."""

from collections.abc import Iterator
from typing import Any

import pytest

from stacks.pipeline_definition import BRANCHES
from tests.stacks.synthesized import Json, Synthesized, by_name, defaults, flat, resolved

SUFFIXES = ["", "Spot", "Tuned", "TunedSpot"]


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
    ("trials", "spot", "chosen"),
    [(0, "false", ""), (0, "true", "Spot"), (3, "false", "Tuned"), (3, "true", "TunedSpot"), (1, "false", "Tuned")],
)
def test_exactly_one_branch_is_chosen(steps: dict[str, Json], trials: int, spot: str, chosen: str) -> None:
    compare = {
        "GreaterThan": lambda left, right: left > right,
        "LessThanOrEqualTo": lambda left, right: left <= right,
        "Equals": lambda left, right: left == right,
    }
    given = {"TuneTrials": trials, "Spot": spot}
    taken = []
    for suffix in SUFFIXES:
        conditions = steps[f"Choose{suffix}"]["Arguments"]["Conditions"]
        if all(compare[each["Type"]](resolved(each["LeftValue"], given), each["RightValue"]) for each in conditions):
            taken.append(suffix)
    assert taken == [chosen]


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
def test_the_gate_registers_what_reaches_the_threshold_and_rejects_the_rest_with_its_accuracy(
    steps: dict[str, Json], suffix: str
) -> None:
    gate = steps[f"Gate{suffix}"]["Arguments"]
    (condition,) = gate["Conditions"]
    accuracy = {
        "Std:JsonGet": {
            "PropertyFile": {"Get": f"Steps.Evaluate{suffix}.PropertyFiles.Evaluation"},
            "Path": "metrics.accuracy.value",
        }
    }
    assert condition["Type"] == "GreaterThanOrEqualTo"
    assert condition["LeftValue"] == accuracy
    assert condition["RightValue"] == {"Get": "Parameters.AccuracyThreshold"}
    assert [each["Name"] for each in gate["IfSteps"]] == [f"Register{suffix}"]
    (reject,) = gate["ElseSteps"]
    assert (reject["Name"], reject["Type"]) == (f"Reject{suffix}", "Fail")
    assert accuracy in reject["Arguments"]["ErrorMessage"]["Std:Join"]["Values"]


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
