"""What each step of the pipeline asks the service for."""

from collections.abc import Iterator
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import botocore.session  # type: ignore[import-untyped]
import pytest
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape  # type: ignore[import-untyped]
from botocore.validate import ParamValidator  # type: ignore[import-untyped]

from stacks.config import DEV, TrainingSettings
from stacks.stage import KennelStage
from tests.stacks.synthesized import Json, Synthesized, by_name, defaults, resolved
from training.hyperparameters import Hyperparameters
from training.metrics import METRIC_DEFINITIONS

SUFFIXES = ["", "Spot", "Tuned", "TunedSpot"]
OPERATIONS = {  # step type -> the operation, and the name that the service fills in
    "Processing": ("CreateProcessingJob", "ProcessingJobName"),
    "Training": ("CreateTrainingJob", "TrainingJobName"),
    "Tuning": ("CreateHyperParameterTuningJob", "HyperParameterTuningJobName"),
    "RegisterModel": ("CreateModelPackage", None),
}


def set_one_by_one() -> list[Field[Any]]:
    return [each for each in fields(Hyperparameters) if each.name != "trials"]  # that one is TuneTrials


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


@pytest.mark.parametrize("step", ["Train", "TrainSpot"])
def test_training_on_the_same_data_shares_features_and_checkpoints_on_spot_and_off(
    definition: Json, steps: dict[str, Json], stage: str, step: str
) -> None:
    config = resolved(steps[step]["Arguments"]["CheckpointConfig"], defaults(definition))
    assert config["LocalPath"] == "/opt/ml/checkpoints"
    folder = f"runs/kennel-{stage.lower()}/checkpoints/datasets/dogs/0123456789abcdef.manifest"
    assert config["S3Uri"].endswith(f"/{folder}")


@pytest.mark.parametrize("step", ["TuneTuned", "TuneTunedSpot"])
def test_trials_of_a_tuning_job_share_no_checkpoints(steps: dict[str, Json], step: str) -> None:
    assert "CheckpointConfig" not in steps[step]["Arguments"]["TrainingJobDefinition"]


def test_every_job_knows_the_image_that_it_runs_in(steps: dict[str, Json]) -> None:
    for step in steps.values():
        if step["Type"] in ("Processing", "Training", "Tuning"):
            arguments = step["Arguments"].get("TrainingJobDefinition", step["Arguments"])
            program = arguments.get("AppSpecification") or arguments["AlgorithmSpecification"]
            image = program.get("ImageUri") or program["TrainingImage"]
            assert arguments["Environment"] == {"TRAINING_IMAGE": image}, step["Name"]


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
    assert set(given) == {each.name for each in fields(Hyperparameters)}
    assert (given["batch_size"], given["learning_rate"], given["model"]) == ("256", "0.0029", "resnet50")


@pytest.mark.parametrize("step", ["Train", "TrainSpot"])
def test_a_training_jobs_trials_are_the_pipelines(definition: Json, steps: dict[str, Json], step: str) -> None:
    given = resolved(steps[step]["Arguments"]["HyperParameters"], defaults(definition) | {"TuneTrials": 7})
    assert given["trials"] == "7"


@pytest.mark.parametrize("field", set_one_by_one(), ids=lambda field: field.name)
def test_every_hyperparameter_is_a_pipeline_parameter_of_its_own_name(
    definition: Json, steps: dict[str, Json], field: Field[Any]
) -> None:
    name = field.name.title().replace("_", "")
    parameter = next(each for each in definition["Parameters"] if each["Name"] == name)
    assert parameter["DefaultValue"] == field.default
    assert tuple(parameter.get("EnumValues", ())) == field.metadata["choices"]
    given = resolved(steps["TrainSpot"]["Arguments"]["HyperParameters"], defaults(definition) | {name: "chosen"})
    assert given[field.name] == "chosen"


def synthesized_with(folder: Path, **settings: Any) -> Synthesized:
    app = cdk.App(outdir=str(folder))
    KennelStage(app, "Dev", settings=replace(DEV, **settings))
    app.synth()
    return Synthesized(folder)


def test_what_the_stage_serves_with_is_what_training_exports_for(tmp_path: Path) -> None:
    graviton = replace(DEV.hosting, instance_type="ml.c7g.large", runtime="onnxruntime")
    definition = synthesized_with(tmp_path, hosting=graviton).definition("Dev")
    assert defaults(definition)["Runtime"] == "onnxruntime"


@pytest.mark.parametrize("hours", [1, 5])
def test_no_job_asks_for_more_time_than_the_pipeline_may_give_it(tmp_path: Path, hours: int) -> None:
    synth = synthesized_with(tmp_path, training=TrainingSettings(max_runtime_hours=hours))
    (start,) = [each for _, each in synth.statements("Dev", "Pipeline") if "CreateTrainingJob" in str(each["Action"])]
    limit = start["Condition"]["NumericLessThanEquals"]["sagemaker:MaxRuntimeInSeconds"]
    for step in by_name(synth.definition("Dev")).values():
        if step["Type"] in ("Processing", "Training", "Tuning"):
            arguments = step["Arguments"].get("TrainingJobDefinition", step["Arguments"])
            assert arguments["StoppingCondition"]["MaxRuntimeInSeconds"] <= limit == hours * 3600, step["Name"]


def test_tuning_searches_what_it_does_not_hold_still(definition: Json, steps: dict[str, Json]) -> None:
    arguments = steps["TuneTuned"]["Arguments"]
    config = arguments["HyperParameterTuningJobConfig"]
    searched = {each["Name"] for kind in config["ParameterRanges"].values() for each in kind}
    still = resolved(arguments["TrainingJobDefinition"]["StaticHyperParameters"], defaults(definition))
    assert searched == {"learning_rate", "weight_decay", "label_smoothing"}
    assert not searched & set(still)
    assert Hyperparameters.from_strings(still) == Hyperparameters()
    assert config["HyperParameterTuningJobObjective"]["MetricName"] in {each["Name"] for each in METRIC_DEFINITIONS}
    assert config["ResourceLimits"]["MaxNumberOfTrainingJobs"] == {"Get": "Parameters.TuneTrials"}
    assert config["ResourceLimits"]["MaxParallelTrainingJobs"] == 1  # never more than there are trials


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
        assert output["S3Uri"].endswith(f"/prepared/datasets/dogs/0123456789abcdef.manifest/fail-auto/{name}")
        assert output["LocalPath"] == f"/opt/ml/processing/output/{name}"


def test_prepare_is_told_of_mode_and_duplicates_and_never_shares_a_folder_between_two_answers(
    definition: Json, steps: dict[str, Json]
) -> None:
    given = defaults(definition) | {"Duplicates": "remove", "Mode": "head"}
    arguments = resolved(steps["Prepare"]["Arguments"], given)
    assert arguments["AppSpecification"]["ContainerArguments"] == ["--duplicates", "remove", "--mode", "head"]
    for output in arguments["ProcessingOutputConfig"]["Outputs"]:
        assert "/remove-head/" in output["S3Output"]["S3Uri"]


def test_every_job_is_tried_again_when_aws_is_at_fault(steps: dict[str, Json]) -> None:
    for step in steps.values():
        if step["Type"] in ("Processing", "Training", "Tuning"):
            kinds = {kind for policy in step["RetryPolicies"] for kind in policy["ExceptionType"]}
            assert {"Step.THROTTLING", "Step.SERVICE_FAULT", "SageMaker.JOB_INTERNAL_ERROR"} <= kinds, step["Name"]
            assert "SageMaker.CAPACITY_ERROR" in kinds, step["Name"]


def test_a_lack_of_quota_is_said_within_the_hour_and_a_lack_of_capacity_is_waited_out(steps: dict[str, Json]) -> None:
    minutes = {
        kind: policy.get("ExpireAfterMin")
        for policy in steps["Train"]["RetryPolicies"]
        for kind in policy["ExceptionType"]
    }
    assert minutes["SageMaker.RESOURCE_LIMIT"] < 60 < minutes["SageMaker.CAPACITY_ERROR"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_registered_model_names_image_data_and_metrics(steps: dict[str, Json], stage: str, suffix: str) -> None:
    arguments = steps[f"Register{suffix}"]["Arguments"]
    (container,) = arguments["InferenceSpecification"]["Containers"]
    assert container["Image"] == f"<Kennel-{stage}-Images.InferenceImageUri>"
    assert arguments["ModelPackageGroupName"] == f"kennel-{stage.lower()}"
    assert arguments["ModelApprovalStatus"] == {"Get": "Parameters.ApprovalStatus"}
    uri = arguments["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]["Std:Join"]["Values"]
    output = f"Steps.Evaluate{suffix}.ProcessingOutputConfig.Outputs['evaluation'].S3Output.S3Uri"
    assert uri == [{"Get": output}, "evaluation.json"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_registry_carries_the_passports_facts_as_texts(
    definition: Json, steps: dict[str, Json], suffix: str
) -> None:
    facts = steps[f"Register{suffix}"]["Arguments"]["CustomerMetadataProperties"]
    plain = resolved(
        {name: facts[name] for name in ("data_manifest", "model", "image_size", "pipeline_execution")},
        defaults(definition),
    )
    assert plain == {
        "data_manifest": "datasets/dogs/0123456789abcdef.manifest",
        "model": "resnet50",
        "image_size": "224",
        "pipeline_execution": "<Execution.PipelineExecutionId>",
    }
    assert facts["training_image"] == steps["Prepare"]["Arguments"]["AppSpecification"]["ImageUri"]
    read = {name: facts[name]["Std:JsonGet"] for name in ("passport_sha256", "data_fingerprint", "code_sha256")}
    for name in ("accuracy", "test_samples"):
        (number,) = facts[name]["Std:Join"]["Values"]  # the service takes texts only
        read[name] = number["Std:JsonGet"]
    assert {each["PropertyFile"]["Get"] for each in read.values()} == {
        f"Steps.Evaluate{suffix}.PropertyFiles.Evaluation"
    }
    assert {name: each["Path"] for name, each in read.items()} == {
        "passport_sha256": "passport.sha256",
        "data_fingerprint": "passport.data_fingerprint",
        "code_sha256": "passport.code_sha256",
        "accuracy": "metrics.accuracy.value",
        "test_samples": "test_samples",
    }
    assert len(facts) == 10
