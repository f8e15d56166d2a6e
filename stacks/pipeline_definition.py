"""The SageMaker pipeline as plain data (definition version 2020-12-01).

Prepare -> one of four branches (plain or tuned, on demand or spot) -> Train or Tune -> Evaluate -> Gate -> Register
or Reject. Four branches, because a job cannot leave MaxWaitTimeInSeconds out by parameter and branches cannot be
joined again. Choices and gates stand side by side: SageMaker refuses a condition inside a condition, and starts no
step of which a dependency was not chosen.
"""

from dataclasses import dataclass
from typing import Any

from stacks.config import TrainingSettings
from stacks.pipeline_jobs import Jobs, evaluation, preparation, training, tuning
from stacks.pipeline_language import execution_id, get, join
from training.hyperparameters import MODELS, Hyperparameters

Step = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One of the four ways to a model; `suffix` tells the step names apart."""

    spot: bool
    tuned: bool

    @property
    def suffix(self) -> str:
        return "Tuned" * self.tuned + "Spot" * self.spot


BRANCHES = tuple(Branch(spot=spot, tuned=tuned) for tuned in (False, True) for spot in (False, True))


def pipeline_definition(jobs: Jobs, *, inference_image: str, model_group: str, approval_status: str) -> dict[str, Any]:
    """The whole definition; strings in it may be CloudFormation tokens."""
    steps = [_prepare(jobs)]
    for branch in BRANCHES:
        steps += [_choice(jobs, branch), _gate(jobs, branch, inference_image=inference_image, model_group=model_group)]
    return {
        "Version": "2020-12-01",
        "Metadata": {},
        "Parameters": parameters(jobs.settings, approval_status),
        "Steps": steps,
    }


def parameters(settings: TrainingSettings, approval_status: str) -> list[dict[str, Any]]:
    """The pipeline's parameters; the defaults of the hyperparameters are those of the training program."""
    defaults = Hyperparameters()
    return [
        {"Name": "DataManifest", "Type": "String"},
        {
            "Name": "InstanceType",
            "Type": "String",
            "DefaultValue": settings.instance_type,
            "EnumValues": list(settings.instance_types),
        },
        {"Name": "InstanceCount", "Type": "Integer", "DefaultValue": settings.instance_count},
        {"Name": "Spot", "Type": "String", "DefaultValue": "false", "EnumValues": ["true", "false"]},
        {"Name": "TuneTrials", "Type": "Integer", "DefaultValue": 0},
        {"Name": "Model", "Type": "String", "DefaultValue": defaults.model, "EnumValues": list(MODELS)},
        {"Name": "Mode", "Type": "String", "DefaultValue": defaults.mode, "EnumValues": ["auto", "head", "whole"]},
        {"Name": "ImageSize", "Type": "Integer", "DefaultValue": defaults.image_size},
        {"Name": "Epochs", "Type": "Integer", "DefaultValue": defaults.epochs},
        {"Name": "BatchSize", "Type": "Integer", "DefaultValue": defaults.batch_size},
        {"Name": "LearningRate", "Type": "Float", "DefaultValue": defaults.learning_rate},
        {"Name": "Seed", "Type": "Integer", "DefaultValue": defaults.seed},
        {"Name": "AccuracyThreshold", "Type": "Float", "DefaultValue": settings.accuracy_threshold},
        {
            "Name": "ApprovalStatus",
            "Type": "String",
            "DefaultValue": approval_status,
            "EnumValues": ["Approved", "PendingManualApproval", "Rejected"],
        },
    ]


# Half of the 30 days after which the bucket drops what Prepare made: a cached answer must still have its files.
_CACHE = {"Enabled": True, "ExpireAfter": "P14D"}
_RETRIES = [
    {
        "ExceptionType": ["Step.SERVICE_FAULT", "Step.THROTTLING"],
        "IntervalSeconds": 15,
        "BackoffRate": 2.0,
        "MaxAttempts": 5,
    },
    {"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "IntervalSeconds": 60, "BackoffRate": 2.0, "MaxAttempts": 2},
    {
        "ExceptionType": ["SageMaker.CAPACITY_ERROR", "SageMaker.RESOURCE_LIMIT"],
        "IntervalSeconds": 300,
        "BackoffRate": 2.0,
        "ExpireAfterMin": 240,
    },
]


def _job(name: str, kind: str, arguments: dict[str, Any], **more: Any) -> Step:
    return {"Name": name, "Type": kind, "Arguments": arguments, "RetryPolicies": _RETRIES, **more}


def _prepare(jobs: Jobs) -> Step:
    return _job("Prepare", "Processing", preparation(jobs), CacheConfig=_CACHE)


def _choice(jobs: Jobs, branch: Branch) -> Step:
    tuned = {
        "Type": "GreaterThan" if branch.tuned else "LessThanOrEqualTo",
        "LeftValue": get("Parameters.TuneTrials"),
        "RightValue": 0,
    }
    spot = {"Type": "Equals", "LeftValue": get("Parameters.Spot"), "RightValue": "true" if branch.spot else "false"}
    steps = [_learn(jobs, branch), _evaluate(jobs, branch)]
    return _condition(f"Choose{branch.suffix}", [tuned, spot], steps, [])


def _learn(jobs: Jobs, branch: Branch) -> Step:
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


def _accuracy(branch: Branch) -> dict[str, Any]:
    file = get(f"Steps.Evaluate{branch.suffix}.PropertyFiles.Evaluation")
    return {"Std:JsonGet": {"PropertyFile": file, "Path": "metrics.accuracy.value"}}


def _gate(jobs: Jobs, branch: Branch, *, inference_image: str, model_group: str) -> Step:
    enough = {
        "Type": "GreaterThanOrEqualTo",
        "LeftValue": _accuracy(branch),
        "RightValue": get("Parameters.AccuracyThreshold"),
    }
    reason = join(
        "",
        "Not registered: the accuracy on the test split, ",
        _accuracy(branch),
        ", is below AccuracyThreshold, ",
        get("Parameters.AccuracyThreshold"),
        ". Look at evaluation.json of the Evaluate step; train longer, on more data, or lower the threshold.",
    )
    register = _register(jobs, branch, inference_image=inference_image, model_group=model_group)
    reject = {"Name": f"Reject{branch.suffix}", "Type": "Fail", "Arguments": {"ErrorMessage": reason}}
    return _condition(f"Gate{branch.suffix}", [enough], [register], [reject])


def _condition(name: str, conditions: list[Any], if_steps: list[Step], else_steps: list[Step]) -> Step:
    arguments = {"Conditions": conditions, "IfSteps": if_steps, "ElseSteps": else_steps}
    return {"Name": name, "Type": "Condition", "Arguments": arguments}


def _register(jobs: Jobs, branch: Branch, *, inference_image: str, model_group: str) -> Step:
    evaluated = get(f"Steps.Evaluate{branch.suffix}.ProcessingOutputConfig.Outputs['evaluation'].S3Output.S3Uri")
    arguments = {
        "ModelPackageGroupName": model_group,
        "ModelApprovalStatus": get("Parameters.ApprovalStatus"),
        "InferenceSpecification": {
            "Containers": [{"Image": inference_image, "ModelDataUrl": _model(jobs, branch)}],
            "SupportedContentTypes": ["image/jpeg", "image/png", "image/webp", "application/x-image"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        "ModelMetrics": {
            "ModelQuality": {
                "Statistics": {"ContentType": "application/json", "S3Uri": join("/", evaluated, "evaluation.json")}
            }
        },
        "CustomerMetadataProperties": {
            "data_manifest": get("Parameters.DataManifest"),
            "model": get("Parameters.Model"),
            "pipeline_execution": execution_id(),
        },
    }
    return {
        "Name": f"Register{branch.suffix}",
        "Type": "RegisterModel",
        "Arguments": arguments,
        "RetryPolicies": _RETRIES[:1],
    }
