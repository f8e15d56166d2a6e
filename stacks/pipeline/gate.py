"""What a model must reach on the test split, and how it is registered."""

from typing import Any

from stacks.pipeline.jobs import Jobs
from stacks.pipeline.language import Step, compare, condition, execution_id, get, join, read
from stacks.pipeline.retries import SERVICE_RETRIES

_MISSED = (
    "Not registered. On the test split, the lower end of the accuracy's 95 % interval, in the least accurate "
    "precision that may be served, is "
)


def _evaluated(suffix: str, path: str) -> dict[str, Any]:
    return read(f"Evaluate{suffix}", "Evaluation", path)


def gate(suffix: str, register: Step) -> Step:
    """The step that goes on with `register` when Evaluate has found enough, and else says what it has found."""
    accuracy = _evaluated(suffix, "metrics.served_accuracy_lower.value"), get("Parameters.AccuracyThreshold")
    worst = _evaluated(suffix, "metrics.worst_classes_recall.value"), get("Parameters.WorstClassesThreshold")
    enough = [compare("GreaterThanOrEqualTo", *accuracy), compare("GreaterThanOrEqualTo", *worst)]
    # The language knows no if inside a text, so both numbers stand beside what they should have reached.
    reason = join(
        "",
        *(_MISSED, accuracy[0]),
        *(" (AccuracyThreshold asks for ", accuracy[1], "), the mean recall of the ten worst classes ", worst[0]),
        *(" (WorstClassesThreshold asks for ", worst[1], "). Look at report.html of the Evaluate step; train longer, "),
        "on more data, or lower the threshold that was missed.",
    )
    reject = {"Name": f"Reject{suffix}", "Type": "Fail", "Arguments": {"ErrorMessage": reason}}
    return condition(f"Gate{suffix}", enough, [register], [reject])


def registration(jobs: Jobs, suffix: str, *, model: Any, inference_image: str, model_group: str) -> Step:
    """The step that puts `model` (URI of model.tar.gz) into the registry, with what its passport says."""
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
        "CustomerMetadataProperties": _passport(jobs, suffix),
    }
    return {
        "Name": f"Register{suffix}",
        "Type": "RegisterModel",
        "Arguments": arguments,
        "RetryPolicies": [SERVICE_RETRIES],
    }


def _passport(jobs: Jobs, suffix: str) -> dict[str, Any]:
    """What the registry knows without the artifact: texts of 1 to 256 characters, so the number is joined to one."""
    return {
        "data_manifest": get("Parameters.DataManifest"),
        "model": get("Parameters.Model"),
        "image_size": join("", get("Parameters.ImageSize")),
        "pipeline_execution": execution_id(),
        "training_image": jobs.image,
        "passport_sha256": _evaluated(suffix, "passport.sha256"),
        "data_fingerprint": _evaluated(suffix, "passport.data_fingerprint"),
        "code_sha256": _evaluated(suffix, "passport.code_sha256"),
        "accuracy": join("", _evaluated(suffix, "metrics.accuracy.value")),
    }
