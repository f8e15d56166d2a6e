"""The pipeline as SageMaker reads it: steps, requests, gates."""

from collections.abc import Iterator
from typing import Any

import botocore.session  # type: ignore[import-untyped]
import pytest
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape  # type: ignore[import-untyped]
from botocore.validate import ParamValidator  # type: ignore[import-untyped]

from stacks.pipeline_definition import BRANCHES
from tests.stacks.synthesized import Json, Synthesized
from training.hyperparameters import Hyperparameters
from training.metrics import METRIC_DEFINITIONS

SUFFIXES = ["", "Spot", "Tuned", "TunedSpot"]
OPERATIONS = {  # step type -> the operation, and the name that the service fills in
    "Processing": ("CreateProcessingJob", "ProcessingJobName"),
    "Training": ("CreateTrainingJob", "TrainingJobName"),
    "Tuning": ("CreateHyperParameterTuningJob", "HyperParameterTuningJobName"),
    "RegisterModel": ("CreateModelPackage", None),
}


def flat(steps: list[Json]) -> Iterator[Json]:
    for step in steps:
        yield step
        if step["Type"] == "Condition":
            yield from flat(step["Arguments"]["IfSteps"])
            yield from flat(step["Arguments"]["ElseSteps"])


def by_name(definition: Json) -> dict[str, Json]:
    return {step["Name"]: step for step in flat(definition["Steps"])}


def resolved(value: Any, parameters: dict[str, Any]) -> Any:
    """`value` as the service sees it at run time; what a step or the execution answers reads `<...>`."""
    if isinstance(value, list):
        return [resolved(each, parameters) for each in value]
    if not isinstance(value, dict):
        return value
    if "Get" in value:
        kind, _, name = value["Get"].partition(".")
        return parameters[name] if kind == "Parameters" else f"<{value['Get']}>"
    if "Std:Join" in value:
        return value["Std:Join"]["On"].join(str(resolved(each, parameters)) for each in value["Std:Join"]["Values"])
    return {key: resolved(each, parameters) for key, each in value.items()}


def defaults(definition: Json) -> dict[str, Any]:
    manifest = {"DataManifest": "datasets/dogs/0123456789abcdef.manifest"}
    return manifest | {
        each["Name"]: each.get("DefaultValue", manifest.get(each["Name"])) for each in definition["Parameters"]
    }


def values_outside_enums(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """What botocore's validator leaves to the service: texts that must be one of a list."""
    if isinstance(shape, StructureShape):
        for key, each in value.items():
            yield from values_outside_enums(each, shape.members[key], f"{path}.{key}")
    elif isinstance(shape, ListShape):
        for each in value:
            yield from values_outside_enums(each, shape.member, path)
    elif isinstance(shape, MapShape):
        for each in value.values():
            yield from values_outside_enums(each, shape.value, path)
    elif isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        yield f"{path}: {value!r}"


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


@pytest.fixture(scope="session")
def definition(synth: Synthesized, stage: str) -> Json:
    return synth.definition(stage)


@pytest.fixture(scope="session")
def steps(definition: Json) -> dict[str, Json]:
    return by_name(definition)


def test_every_request_has_the_shape_that_the_service_takes(definition: Json, steps: dict[str, Json]) -> None:
    service = botocore.session.get_session().get_service_model("sagemaker")
    jobs = [step for step in steps.values() if step["Type"] in OPERATIONS]
    assert len(jobs) == 1 + 4 * 3
    for step in jobs:
        operation, name = OPERATIONS[step["Type"]]
        request = resolved(step["Arguments"], defaults(definition) | {"TuneTrials": 3})
        request |= {name: "a-name"} if name else {}
        shape = service.operation_model(operation).input_shape
        assert shape is not None
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), f"{step['Name']}: {report.generate_report()}"
        assert list(values_outside_enums(request, shape, step["Name"])) == []


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


def test_every_job_is_isolated_encrypted_and_runs_as_the_job_role(
    synth: Synthesized, stage: str, steps: dict[str, Json]
) -> None:
    (role,) = [id_ for id_ in synth.resources(stage, "Pipeline", "AWS::IAM::Role") if id_.startswith("JobRole")]
    for step in steps.values():
        if step["Type"] in ("Processing", "Training", "Tuning"):
            arguments = step["Arguments"].get("TrainingJobDefinition", step["Arguments"])
            network = arguments.get("NetworkConfig", arguments)
            assert network["EnableNetworkIsolation"] is True, step["Name"]
            assert network["EnableInterContainerTrafficEncryption"] is True, step["Name"]
            assert ("VpcConfig" in network) == (stage == "Prod"), step["Name"]
            assert arguments["RoleArn"] == f"<{role}.Arn>", step["Name"]
            output = arguments.get("ProcessingOutputConfig") or arguments["OutputDataConfig"]
            assert "Key" in output["KmsKeyId"], step["Name"]
            machine = arguments.get("ResourceConfig") or arguments["ProcessingResources"]["ClusterConfig"]
            assert machine["VolumeKmsKeyId"] == output["KmsKeyId"], step["Name"]
            assert arguments["StoppingCondition"]["MaxRuntimeInSeconds"] > 0, step["Name"]
            assert step["Arguments"]["Tags"] == [{"Key": "kennel:pipeline", "Value": f"kennel-{stage.lower()}"}]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_only_spot_branches_wait_for_capacity(steps: dict[str, Json], suffix: str) -> None:
    step = steps.get(f"Train{suffix}") or steps[f"Tune{suffix}"]
    arguments = step["Arguments"].get("TrainingJobDefinition", step["Arguments"])
    stopping = arguments["StoppingCondition"]
    spot = suffix.endswith("Spot")
    assert arguments["EnableManagedSpotTraining"] is spot
    assert ("MaxWaitTimeInSeconds" in stopping) is spot  # the service refuses it without spot
    assert stopping.get("MaxWaitTimeInSeconds", 10**9) >= stopping["MaxRuntimeInSeconds"]


def test_a_spot_run_keeps_its_checkpoints_apart_from_every_other_run(steps: dict[str, Json], stage: str) -> None:
    config = steps["TrainSpot"]["Arguments"]["CheckpointConfig"]
    assert config["LocalPath"] == "/opt/ml/checkpoints"
    folder, execution = config["S3Uri"]["Std:Join"]["Values"]
    assert folder.endswith(f"/runs/kennel-{stage.lower()}/checkpoints")
    assert execution == {"Get": "Execution.PipelineExecutionId"}


@pytest.mark.parametrize("step", ["Train", "TuneTuned"])
def test_training_cannot_see_the_test_split(steps: dict[str, Json], step: str) -> None:
    arguments = steps[step]["Arguments"].get("TrainingJobDefinition", steps[step]["Arguments"])
    channels = {
        each["ChannelName"]: each["DataSource"]["S3DataSource"]["S3Uri"] for each in arguments["InputDataConfig"]
    }
    data = {"Get": "Steps.Prepare.ProcessingOutputConfig.Outputs['data'].S3Output.S3Uri"}
    assert channels == {
        "train": {"Std:Join": {"On": "/", "Values": [data, "train"]}},
        "valid": {"Std:Join": {"On": "/", "Values": [data, "valid"]}},
        "weights": {"Get": "Steps.Prepare.ProcessingOutputConfig.Outputs['weights'].S3Output.S3Uri"},
    }


def test_the_programs_own_hyperparameters_are_the_defaults(definition: Json, steps: dict[str, Json]) -> None:
    given = resolved(steps["Train"]["Arguments"]["HyperParameters"], defaults(definition))
    assert Hyperparameters.from_strings(given) == Hyperparameters()
    assert (given["batch_size"], given["learning_rate"], given["model"]) == ("256", "0.0029", "resnet50")


def test_tuning_searches_what_it_does_not_hold_still(definition: Json, steps: dict[str, Json]) -> None:
    arguments = steps["TuneTuned"]["Arguments"]
    config = arguments["HyperParameterTuningJobConfig"]
    searched = {each["Name"] for kind in config["ParameterRanges"].values() for each in kind}
    still = resolved(arguments["TrainingJobDefinition"]["StaticHyperParameters"], defaults(definition))
    assert searched == {"learning_rate", "weight_decay"}
    assert not searched & set(still)
    assert Hyperparameters.from_strings(still) == Hyperparameters()
    assert config["HyperParameterTuningJobObjective"]["MetricName"] in {each["Name"] for each in METRIC_DEFINITIONS}
    assert config["ResourceLimits"]["MaxNumberOfTrainingJobs"] == {"Get": "Parameters.TuneTrials"}
    assert config["ResourceLimits"]["MaxParallelTrainingJobs"] == 1  # never more than there are trials


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


def test_prepare_reads_the_uploads_manifest_and_names_its_output_after_it(
    definition: Json, steps: dict[str, Json]
) -> None:
    arguments = resolved(steps["Prepare"]["Arguments"], defaults(definition))
    (dataset,) = arguments["ProcessingInputs"]
    assert dataset["S3Input"]["S3DataType"] == "ManifestFile"
    assert dataset["S3Input"]["S3Uri"].endswith("/datasets/dogs/0123456789abcdef.manifest")
    assert dataset["S3Input"]["LocalPath"] == "/opt/ml/processing/input/dataset"
    outputs = {each["OutputName"]: each["S3Output"] for each in arguments["ProcessingOutputConfig"]["Outputs"]}
    assert set(outputs) == {"data", "weights", "report"}
    for name, output in outputs.items():
        assert output["S3Uri"].endswith(f"/prepared/datasets/dogs/0123456789abcdef.manifest/{name}")
        assert output["LocalPath"] == f"/opt/ml/processing/output/{name}"


def test_what_is_cached_is_forgotten_before_the_bucket_drops_it(synth: Synthesized, stage: str) -> None:
    steps = by_name(synth.definition(stage))
    cached = {name for name, step in steps.items() if step.get("CacheConfig", {}).get("Enabled")}
    assert cached == {"Prepare", "Train", "TrainSpot", *(f"Evaluate{suffix}" for suffix in SUFFIXES)}
    assert {steps[name]["CacheConfig"]["ExpireAfter"] for name in cached} == {"P14D"}
    bucket = synth.resources(stage, "Data", "AWS::S3::Bucket")["Bucket83908E77"]["Properties"]
    (prepared,) = [each for each in bucket["LifecycleConfiguration"]["Rules"] if each.get("Prefix") == "prepared/"]
    assert prepared["ExpirationInDays"] > 14


def test_every_job_is_tried_again_when_aws_is_at_fault(steps: dict[str, Json]) -> None:
    for step in steps.values():
        if step["Type"] in ("Processing", "Training", "Tuning"):
            kinds = {kind for policy in step["RetryPolicies"] for kind in policy["ExceptionType"]}
            assert {"Step.THROTTLING", "Step.SERVICE_FAULT", "SageMaker.JOB_INTERNAL_ERROR"} <= kinds, step["Name"]
            assert "SageMaker.CAPACITY_ERROR" in kinds, step["Name"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_registered_model_names_image_data_and_metrics(steps: dict[str, Json], stage: str, suffix: str) -> None:
    arguments = steps[f"Register{suffix}"]["Arguments"]
    (container,) = arguments["InferenceSpecification"]["Containers"]
    assert f"<{stage}-Images." in container["Image"]
    assert "InferenceBuild" in container["Image"]
    assert arguments["ModelPackageGroupName"] == f"kennel-{stage.lower()}"
    assert arguments["ModelApprovalStatus"] == {"Get": "Parameters.ApprovalStatus"}
    uri = arguments["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]["Std:Join"]["Values"]
    output = f"Steps.Evaluate{suffix}.ProcessingOutputConfig.Outputs['evaluation'].S3Output.S3Uri"
    assert uri == [{"Get": output}, "evaluation.json"]


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
