"""The SageMaker pipeline as plain data (definition version 2020-12-01).

Prepare -> one of four branches (plain or tuned, on demand or spot) -> Train or Tune -> Evaluate -> Gate -> Register
or Reject. Four branches, because a job cannot leave MaxWaitTimeInSeconds out by parameter and branches cannot be
joined again. Choices and gates stand side by side: SageMaker refuses a condition inside a condition, and starts no
step of which a dependency was not chosen.
"""

from dataclasses import dataclass
from typing import Any

from stacks.pipeline.gate import gate, registration
from stacks.pipeline.jobs import Jobs
from stacks.pipeline.language import Step, compare, condition, get, join, read
from stacks.pipeline.parameters import parameters
from stacks.pipeline.processing import evaluation, preparation
from stacks.pipeline.requests import training, tuning
from stacks.pipeline.retries import JOB_RETRIES


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One of the four ways to a model; `suffix` tells the step names apart."""

    spot: bool
    tuned: bool

    @property
    def suffix(self) -> str:
        return "Tuned" * self.tuned + "Spot" * self.spot


BRANCHES = tuple(Branch(spot=spot, tuned=tuned) for tuned in (False, True) for spot in (False, True))


def pipeline_definition(
    jobs: Jobs, *, inference_image: str, model_group: str, approval_status: str, runtime: str
) -> dict[str, Any]:
    """The whole definition; strings in it may be CloudFormation tokens. `runtime` is what will serve the models."""
    steps = [_prepare(jobs)]
    for branch in BRANCHES:
        register = registration(
            jobs, branch.suffix, model=_model(jobs, branch), inference_image=inference_image, model_group=model_group
        )
        steps += [_choice(jobs, branch), gate(branch.suffix, register)]
    return {
        "Version": "2020-12-01",
        "Metadata": {},
        "Parameters": parameters(jobs.settings, approval_status, runtime),
        "Steps": steps,
    }


# Half of the 30 days after which the bucket drops what Prepare made: a cached answer must still have its files.
_CACHE = {"Enabled": True, "ExpireAfter": "P14D"}


def _job(name: str, kind: str, arguments: dict[str, Any], **more: Any) -> Step:
    return {"Name": name, "Type": kind, "Arguments": arguments, "RetryPolicies": JOB_RETRIES, **more}


def _prepare(jobs: Jobs) -> Step:
    files = [{"PropertyFileName": "Preparation", "OutputName": "report", "FilePath": "prepare.json"}]
    return _job("Prepare", "Processing", preparation(jobs), CacheConfig=_CACHE, PropertyFiles=files)


def _choice(jobs: Jobs, branch: Branch) -> Step:
    spot = compare("Equals", get("Parameters.Spot"), "true" if branch.spot else "false")
    steps = [_learn(jobs, branch), _evaluate(jobs, branch)]
    return condition(f"Choose{branch.suffix}", [*_tuned(branch), spot], steps, [])


def _tuned(branch: Branch) -> list[Any]:
    """Trials of the whole network are jobs of their own; those of a head all run in one job, on the same features."""
    trials, mode = get("Parameters.TuneTrials"), read("Prepare", "Preparation", "mode")
    if branch.tuned:
        return [compare("GreaterThan", trials, 0), compare("Equals", mode, "whole")]
    either = [compare("LessThanOrEqualTo", trials, 0), compare("Equals", mode, "head")]
    return [{"Type": "Or", "Conditions": either}]


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
