"""The learning jobs' requests: CreateTrainingJob and CreateHyperParameterTuningJob without the name."""

from typing import Any

from stacks.pipeline.jobs import HOUR, Jobs, prepared
from stacks.pipeline.language import get, join
from stacks.pipeline.parameters import hyperparameters
from training.metrics import METRIC_DEFINITIONS


def training(jobs: Jobs, *, spot: bool) -> dict[str, Any]:
    """One training job. In head mode TuneTrials is its number of trials; in whole mode it is 0 where this runs."""
    return {
        "HyperParameters": hyperparameters() | {"trials": join("", get("Parameters.TuneTrials"))},
        **_learning(jobs, "train", spot=spot),
        # Runs on the same data share this folder: a later one finds the features; checkpoints know whose they are.
        "CheckpointConfig": {
            "S3Uri": join("/", jobs.run_uri("checkpoints"), get("Parameters.DataManifest")),
            "LocalPath": "/opt/ml/checkpoints",
        },
        "Tags": jobs.tags,
    }


def tuning(jobs: Jobs, *, spot: bool) -> dict[str, Any]:
    """Searches for whole-network mode; an interrupted spot trial starts anew (trials share no checkpoints)."""
    searched = [
        _range("learning_rate", "0.0001", "0.01", "Logarithmic"),
        _range("weight_decay", "0.0001", "0.1", "Logarithmic"),
        _range("label_smoothing", "0", "0.2", "Linear"),
    ]
    return {
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "valid_accuracy"},
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": get("Parameters.TuneTrials"),
                "MaxParallelTrainingJobs": jobs.settings.parallel_trials,
            },
            "ParameterRanges": {"ContinuousParameterRanges": searched},
            "TrainingJobEarlyStoppingType": "Auto",
            "RandomSeed": get("Parameters.Seed"),
        },
        "TrainingJobDefinition": {
            "StaticHyperParameters": hyperparameters(leave_out={each["Name"] for each in searched}),
            **_learning(jobs, "tune", spot=spot),
        },
        "Tags": jobs.tags,
    }


def _learning(jobs: Jobs, kind: str, *, spot: bool) -> dict[str, Any]:
    """What a training job and the trials of a tuning job have in common."""
    wait = {"MaxWaitTimeInSeconds": jobs.settings.max_wait_hours * HOUR} if spot else {}
    return {
        "AlgorithmSpecification": {
            "TrainingImage": jobs.image,
            "TrainingInputMode": "File",
            "MetricDefinitions": METRIC_DEFINITIONS,
        },
        "Environment": jobs.environment,
        "RoleArn": jobs.role_arn,
        "InputDataConfig": [
            _channel("train", join("/", prepared("data"), "train")),
            _channel("valid", join("/", prepared("data"), "valid")),
            _channel("weights", prepared("weights")),
        ],
        "OutputDataConfig": {"S3OutputPath": jobs.run_uri(kind), "KmsKeyId": jobs.key_arn},
        "ResourceConfig": {
            "InstanceType": get("Parameters.InstanceType"),
            "InstanceCount": get("Parameters.InstanceCount"),
            "VolumeSizeInGB": jobs.settings.volume_gib,
            **jobs.volume_key,
        },
        **jobs.vpc_config,
        "StoppingCondition": {"MaxRuntimeInSeconds": jobs.settings.max_runtime_hours * HOUR, **wait},
        "EnableNetworkIsolation": True,
        "EnableInterContainerTrafficEncryption": True,
        "EnableManagedSpotTraining": spot,
    }


def _channel(name: str, uri: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}


def _range(name: str, low: str, high: str, scaling: str) -> dict[str, str]:
    return {"Name": name, "MinValue": low, "MaxValue": high, "ScalingType": scaling}
