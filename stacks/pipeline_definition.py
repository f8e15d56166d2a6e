"""The SageMaker pipeline as plain data (definition version 2020-12-01).

Prepare -> one of four branches (plain or tuned, on demand or spot) -> Train or Tune -> Evaluate -> Gate -> Register
or Reject. Four branches, because a job cannot leave MaxWaitTimeInSeconds out by parameter and branches cannot be
joined again. Choices and gates stand side by side: SageMaker refuses a condition inside a condition, and starts no
step of which a dependency was not chosen.
"""

from dataclasses import dataclass
from typing import Any

from stacks.pipeline_jobs import Jobs, evaluation, preparation, training, tuning
from stacks.pipeline_language import execution_id, get, join, read
from stacks.pipeline_parameters import parameters

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
    files = [{"PropertyFileName": "Preparation", "OutputName": "report", "FilePath": "prepare.json"}]
    return _job("Prepare", "Processing", preparation(jobs), CacheConfig=_CACHE, PropertyFiles=files)


def _choice(jobs: Jobs, branch: Branch) -> Step:
    spot = _compare("Equals", get("Parameters.Spot"), "true" if branch.spot else "false")
    steps = [_learn(jobs, branch), _evaluate(jobs, branch)]
    return _condition(f"Choose{branch.suffix}", [*_tuned(branch), spot], steps, [])


def _tuned(branch: Branch) -> list[Any]:
    """Trials of the whole network are jobs of their own; those of a head all run in one job, on the same features."""
    trials, mode = get("Parameters.TuneTrials"), read("Prepare", "Preparation", "mode")
    if branch.tuned:
        return [_compare("GreaterThan", trials, 0), _compare("Equals", mode, "whole")]
    either = [_compare("LessThanOrEqualTo", trials, 0), _compare("Equals", mode, "head")]
    return [{"Type": "Or", "Conditions": either}]


def _compare(how: str, left: Any, right: Any) -> dict[str, Any]:
    return {"Type": how, "LeftValue": left, "RightValue": right}


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


def _evaluated(branch: Branch, path: str) -> dict[str, Any]:
    return read(f"Evaluate{branch.suffix}", "Evaluation", path)


def _gate(jobs: Jobs, branch: Branch, *, inference_image: str, model_group: str) -> Step:
    accuracy = _evaluated(branch, "metrics.accuracy_lower.value"), get("Parameters.AccuracyThreshold")
    worst = _evaluated(branch, "metrics.worst_classes_recall.value"), get("Parameters.WorstClassesThreshold")
    enough = [_compare("GreaterThanOrEqualTo", *accuracy), _compare("GreaterThanOrEqualTo", *worst)]
    # The language knows no if inside a text, so both numbers stand beside what they should have reached.
    reason = join(
        "",
        *("Not registered. On the test split, the lower end of the accuracy's 95 % interval is ", accuracy[0]),
        *(" (AccuracyThreshold asks for ", accuracy[1], "), the mean recall of the ten worst classes ", worst[0]),
        *(" (WorstClassesThreshold asks for ", worst[1], "). Look at report.html of the Evaluate step; train longer, "),
        "on more data, or lower the threshold that was missed.",
    )
    register = _register(jobs, branch, inference_image=inference_image, model_group=model_group)
    reject = {"Name": f"Reject{branch.suffix}", "Type": "Fail", "Arguments": {"ErrorMessage": reason}}
    return _condition(f"Gate{branch.suffix}", enough, [register], [reject])


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
        "CustomerMetadataProperties": _passport(jobs, branch),
    }
    return {
        "Name": f"Register{branch.suffix}",
        "Type": "RegisterModel",
        "Arguments": arguments,
        "RetryPolicies": _RETRIES[:1],
    }


def _passport(jobs: Jobs, branch: Branch) -> dict[str, Any]:
    """What the registry knows without the artifact: texts of 1 to 256 characters, so the number is joined to one."""
    return {
        "data_manifest": get("Parameters.DataManifest"),
        "model": get("Parameters.Model"),
        "pipeline_execution": execution_id(),
        "training_image": jobs.image,
        "passport_sha256": _evaluated(branch, "passport.sha256"),
        "data_fingerprint": _evaluated(branch, "passport.data_fingerprint"),
        "code_sha256": _evaluated(branch, "passport.code_sha256"),
        "accuracy": join("", _evaluated(branch, "metrics.accuracy.value")),
    }
