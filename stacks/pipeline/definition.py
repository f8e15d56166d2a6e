"""The SageMaker pipeline as plain data (definition version 2020-12-01).

Prepare -> one of four branches (plain or tuned, on demand or spot) -> Train or Tune -> Evaluate -> Gate -> Register
or Reject. Four branches, because a job cannot leave MaxWaitTimeInSeconds out by parameter and branches cannot be
joined again. Choices and gates stand side by side: SageMaker refuses a condition inside a condition, and starts no
step of which a dependency was not chosen.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from stacks.config import TrainingSettings
from stacks.pipeline.requests import EXECUTION_ID, Jobs, evaluation, get, join, preparation, training, tuning
from training.hyperparameters import HEAD_MODES, parameter_name, settable

Step = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One of the four branches; `suffix` makes its step names unique."""

    spot: bool
    tuned: bool

    @property
    def suffix(self) -> str:
        return "Tuned" * self.tuned + "Spot" * self.spot


BRANCHES = tuple(Branch(spot=spot, tuned=tuned) for tuned in (False, True) for spot in (False, True))


def pipeline_definition(
    jobs: Jobs, *, inference_image: str, model_group: str, approval_status: str, runtime: str
) -> dict[str, Any]:
    """Return the definition; its strings may be CloudFormation tokens. `runtime` is what will serve the models."""
    steps = [_prepare(jobs)]
    for branch in BRANCHES:
        register = registration(
            jobs, branch.suffix, model=_model(jobs, branch), inference_image=inference_image, model_group=model_group
        )
        steps += [_choice(jobs, branch), gate(branch.suffix, register)]
    return {
        "Version": "2020-12-01",
        "Metadata": {},
        "Parameters": _parameters(jobs.settings, approval_status, runtime),
        "Steps": steps,
    }


_TYPES = {str: "String", int: "Integer", float: "Float"}
# Half of the 30 days after which the bucket drops what Prepare made: a cached answer must still have its files.
_CACHE = {"Enabled": True, "ExpireAfter": "P14D"}
# A step is retried when the fault is AWS's own, or a lack of capacity.
_SERVICE_RETRIES = {
    "ExceptionType": ["Step.SERVICE_FAULT", "Step.THROTTLING"],
    "IntervalSeconds": 15,
    "BackoffRate": 2.0,
    "MaxAttempts": 5,
}
_JOB_RETRIES = [
    _SERVICE_RETRIES,
    {"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "IntervalSeconds": 60, "BackoffRate": 2.0, "MaxAttempts": 2},
    {"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "IntervalSeconds": 300, "BackoffRate": 2.0, "ExpireAfterMin": 240},
    # The account's quota: another job may end within minutes, a higher quota does not come by waiting.
    {"ExceptionType": ["SageMaker.RESOURCE_LIMIT"], "IntervalSeconds": 60, "BackoffRate": 2.0, "ExpireAfterMin": 15},
]


def _job(name: str, kind: str, arguments: dict[str, Any], **more: Any) -> Step:
    return {"Name": name, "Type": kind, "Arguments": arguments, "RetryPolicies": _JOB_RETRIES, **more}


def _read(step: str, file: str, path: str) -> dict[str, Any]:
    """Return the value at `path` (`a.b.c`) of the JSON file that step `step` declares as property file `file`."""
    return {"Std:JsonGet": {"PropertyFile": get(f"Steps.{step}.PropertyFiles.{file}"), "Path": path}}


def _compare(how: str, left: Any, right: Any) -> dict[str, Any]:
    return {"Type": how, "LeftValue": left, "RightValue": right}


def _condition(name: str, conditions: list[Any], if_steps: list[Step], else_steps: list[Step]) -> Step:
    """Return a step that goes on with `if_steps` when all conditions hold, else with `else_steps`."""
    arguments = {"Conditions": conditions, "IfSteps": if_steps, "ElseSteps": else_steps}
    return {"Name": name, "Type": "Condition", "Arguments": arguments}


def _prepare(jobs: Jobs) -> Step:
    files = [{"PropertyFileName": "Preparation", "OutputName": "report", "FilePath": "prepare.json"}]
    return _job("Prepare", "Processing", preparation(jobs), CacheConfig=_CACHE, PropertyFiles=files)


def _choice(jobs: Jobs, branch: Branch) -> Step:
    spot = _compare("Equals", get("Parameters.Spot"), "true" if branch.spot else "false")
    steps = [_train(jobs, branch), _evaluate(jobs, branch)]
    return _condition(f"Choose{branch.suffix}", [*_tuned(branch), spot], steps, [])


def _tuned(branch: Branch) -> list[Any]:
    """Return the conditions of a branch: whole-network trials are jobs, those of a head (finetune too) run in one."""
    trials, mode = get("Parameters.TuneTrials"), _read("Prepare", "Preparation", "mode")
    if branch.tuned:
        return [_compare("GreaterThan", trials, 0), _compare("Equals", mode, "whole")]
    one_job = [_compare("Equals", mode, name) for name in HEAD_MODES]
    return [{"Type": "Or", "Conditions": [_compare("LessThanOrEqualTo", trials, 0), *one_job]}]


def _train(jobs: Jobs, branch: Branch) -> Step:
    if branch.tuned:  # a search is never cached: its trials are random
        return _job(f"Tune{branch.suffix}", "Tuning", tuning(jobs, spot=branch.spot))
    return _job(f"Train{branch.suffix}", "Training", training(jobs, spot=branch.spot), CacheConfig=_CACHE)


def _model(jobs: Jobs, branch: Branch) -> Any:
    if not branch.tuned:
        return get(f"Steps.Train{branch.suffix}.ModelArtifacts.S3ModelArtifacts")
    best = get(f"Steps.Tune{branch.suffix}.BestTrainingJob.TrainingJobName")
    return join("/", jobs.run_uri("tune"), best, "output/model.tar.gz")


def _evaluate(jobs: Jobs, branch: Branch) -> Step:
    files = [{"PropertyFileName": "Evaluation", "OutputName": "evaluation", "FilePath": "evaluation.json"}]
    arguments = evaluation(jobs, model=_model(jobs, branch))
    return _job(f"Evaluate{branch.suffix}", "Processing", arguments, CacheConfig=_CACHE, PropertyFiles=files)


def _evaluated(suffix: str, path: str) -> dict[str, Any]:
    return _read(f"Evaluate{suffix}", "Evaluation", path)


def gate(suffix: str, register: Step) -> Step:
    """Return the condition step: `register` if both thresholds are met, else a Fail step that says so."""
    accuracy = _evaluated(suffix, "metrics.served_accuracy_lower.value"), get("Parameters.AccuracyThreshold")
    worst = _evaluated(suffix, "metrics.worst_classes_recall.value"), get("Parameters.WorstClassesThreshold")
    enough = [_compare("GreaterThanOrEqualTo", *accuracy), _compare("GreaterThanOrEqualTo", *worst)]
    # Without the two values: no document says that a text may be joined from a property file.
    reason = join(
        "",
        "The model was not registered: on the test split its accuracy (lower end of the 95 % interval) is below ",
        *("AccuracyThreshold ", accuracy[1], " or the mean recall of its ten worst classes is below "),
        *("WorstClassesThreshold ", worst[1], ". See report.html of the Evaluate step."),
    )
    reject = {"Name": f"Reject{suffix}", "Type": "Fail", "Arguments": {"ErrorMessage": reason}}
    return _condition(f"Gate{suffix}", enough, [register], [reject])


def registration(jobs: Jobs, suffix: str, *, model: Any, inference_image: str, model_group: str) -> Step:
    """Return the step that registers `model` (URI of model.tar.gz) with its provenance."""
    evaluated = get(f"Steps.Evaluate{suffix}.ProcessingOutputConfig.Outputs['evaluation'].S3Output.S3Uri")
    arguments = {
        "ModelPackageGroupName": model_group,
        "ModelApprovalStatus": get("Parameters.ApprovalStatus"),
        "InferenceSpecification": {
            "Containers": [{"Image": inference_image, "ModelDataUrl": model}],
            "SupportedContentTypes": ["image/jpeg", "image/png", "image/webp", "application/x-image"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        "ModelMetrics": {
            "ModelQuality": {
                "Statistics": {"ContentType": "application/json", "S3Uri": join("/", evaluated, "evaluation.json")}
            }
        },
        "CustomerMetadataProperties": _provenance(jobs, suffix),
    }
    return {
        "Name": f"Register{suffix}",
        "Type": "RegisterModel",
        "Arguments": arguments,
        "RetryPolicies": [_SERVICE_RETRIES],
    }


def _provenance(jobs: Jobs, suffix: str) -> dict[str, Any]:
    """Return the package's metadata: texts of 1 to 256 characters, so numbers are joined to texts."""
    return {
        "data_manifest": get("Parameters.DataManifest"),
        "model": get("Parameters.Model"),
        "image_size": join("", get("Parameters.ImageSize")),
        "pipeline_execution": EXECUTION_ID,
        "training_image": jobs.image,
        "passport_sha256": _evaluated(suffix, "passport.sha256"),
        "data_fingerprint": _evaluated(suffix, "passport.data_fingerprint"),
        "code_sha256": _evaluated(suffix, "passport.code_sha256"),
        "accuracy": join("", _evaluated(suffix, "metrics.accuracy.value")),
        "test_samples": join("", _evaluated(suffix, "test_samples")),
    }


def _parameters(settings: TrainingSettings, approval_status: str, runtime: str) -> list[dict[str, Any]]:
    """Return the parameters, each but DataManifest with a default; Runtime's is what the stage serves with."""
    of_stage = {"runtime": runtime}
    return [
        {"Name": "DataManifest", "Type": "String"},
        _parameter("InstanceType", settings.instance_type, settings.instance_types),
        _parameter("InstanceCount", settings.instance_count),
        _parameter("Spot", "false", ("true", "false")),
        _parameter("TuneTrials", 0),
        _parameter("Duplicates", "fail", ("fail", "remove", "report")),
        *(
            _parameter(parameter_name(each.name), of_stage.get(each.name, each.default), each.metadata["choices"])
            for each in settable()
        ),
        _parameter("AccuracyThreshold", float(settings.accuracy_threshold)),
        _parameter("WorstClassesThreshold", float(settings.worst_classes_threshold)),
        _parameter("ApprovalStatus", approval_status, ("Approved", "PendingManualApproval", "Rejected")),
    ]


def _parameter(name: str, default: Any, choices: Collection[str] = ()) -> dict[str, Any]:
    allowed = {"EnumValues": [*choices]} if choices else {}
    return {"Name": name, "Type": _TYPES[type(default)], "DefaultValue": default, **allowed}
