"""The jobs' requests: CreateProcessingJob, CreateTrainingJob and CreateHyperParameterTuningJob without the name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stacks.config import TrainingSettings
from stacks.pipeline_language import execution_id, get, join
from stacks.pipeline_parameters import hyperparameters
from training.metrics import METRIC_DEFINITIONS

_HOUR = 3600  # seconds
_OUTPUT = "/opt/ml/processing/output"


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """What every job of a stage shares. Texts may be CloudFormation tokens; `vpc` None: no VPC."""

    name: str
    image: str
    role_arn: str
    bucket: str
    key_arn: str
    vpc: dict[str, Any] | None
    settings: TrainingSettings

    def run_uri(self, kind: str) -> str:
        """Where jobs of that kind (train, evaluate, tune, checkpoints) write."""
        return f"s3://{self.bucket}/runs/{self.name}/{kind}"

    @property
    def volume_key(self) -> dict[str, str]:
        return {"VolumeKmsKeyId": self.key_arn} if self.settings.volume_key else {}

    @property
    def environment(self) -> dict[str, str]:
        """What the program writes into the model's passport and cannot find out by itself."""
        return {"TRAINING_IMAGE": self.image}

    @property
    def vpc_config(self) -> dict[str, Any]:
        return {"VpcConfig": self.vpc} if self.vpc else {}


def preparation(jobs: Jobs) -> dict[str, Any]:
    """Verifies, splits and packs the uploaded data set.

    What it makes lies under its arguments too: another Mode or another choice of Duplicates over the same data must
    not be mistaken for it, neither by a job that runs meanwhile nor by SageMaker's cache, which compares addresses.
    """
    dataset = _input("dataset", join("/", f"s3://{jobs.bucket}", get("Parameters.DataManifest")), kind="ManifestFile")
    duplicates, mode = get("Parameters.Duplicates"), get("Parameters.Mode")
    folder = (f"s3://{jobs.bucket}/prepared", get("Parameters.DataManifest"), join("-", duplicates, mode))
    outputs = [_output(name, join("/", *folder, name)) for name in ("data", "weights", "report")]
    arguments = ["--duplicates", duplicates, "--mode", mode]
    return _processing(jobs, "prepare", [dataset], outputs, arguments)


def evaluation(jobs: Jobs, *, model: Any) -> dict[str, Any]:
    """Measures the exported model (`model`: URI of its model.tar.gz) on the test split."""
    inputs = [_input("model", model), _input("test", join("/", _prepared("data"), "test"))]
    return _processing(
        jobs, "evaluate", inputs, [_output("evaluation", join("/", jobs.run_uri("evaluate"), execution_id()))]
    )


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
        "Tags": _tags(jobs),
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
        "Tags": _tags(jobs),
    }


def _learning(jobs: Jobs, kind: str, *, spot: bool) -> dict[str, Any]:
    """What a training job and the trials of a tuning job have in common."""
    wait = {"MaxWaitTimeInSeconds": jobs.settings.max_wait_hours * _HOUR} if spot else {}
    return {
        "AlgorithmSpecification": {
            "TrainingImage": jobs.image,
            "TrainingInputMode": "File",
            "MetricDefinitions": METRIC_DEFINITIONS,
        },
        "Environment": jobs.environment,
        "RoleArn": jobs.role_arn,
        "InputDataConfig": [
            _channel("train", join("/", _prepared("data"), "train")),
            _channel("valid", join("/", _prepared("data"), "valid")),
            _channel("weights", _prepared("weights")),
        ],
        "OutputDataConfig": {"S3OutputPath": jobs.run_uri(kind), "KmsKeyId": jobs.key_arn},
        "ResourceConfig": {
            "InstanceType": get("Parameters.InstanceType"),
            "InstanceCount": get("Parameters.InstanceCount"),
            "VolumeSizeInGB": jobs.settings.volume_gib,
            **jobs.volume_key,
        },
        **jobs.vpc_config,
        "StoppingCondition": {"MaxRuntimeInSeconds": jobs.settings.max_runtime_hours * _HOUR, **wait},
        "EnableNetworkIsolation": True,
        "EnableInterContainerTrafficEncryption": True,
        "EnableManagedSpotTraining": spot,
    }


def _processing(
    jobs: Jobs, command: str, inputs: list[Any], outputs: list[Any], arguments: Sequence[Any] = ()
) -> dict[str, Any]:
    program = {"ImageUri": jobs.image, "ContainerEntrypoint": ["python3", "-m", "training", command]}
    return {
        "AppSpecification": {**program, "ContainerArguments": [*arguments]} if arguments else program,
        "Environment": jobs.environment,
        "RoleArn": jobs.role_arn,
        "ProcessingInputs": inputs,
        "ProcessingOutputConfig": {"Outputs": outputs, "KmsKeyId": jobs.key_arn},
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceType": jobs.settings.processing_instance_type,
                "InstanceCount": 1,
                "VolumeSizeInGB": jobs.settings.volume_gib,
                **jobs.volume_key,
            }
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 4 * _HOUR},
        "NetworkConfig": {
            "EnableNetworkIsolation": True,
            "EnableInterContainerTrafficEncryption": True,
            **jobs.vpc_config,
        },
        "Tags": _tags(jobs),
    }


def _input(name: str, uri: Any, *, kind: str = "S3Prefix") -> dict[str, Any]:
    source = {
        "S3Uri": uri,
        "LocalPath": f"/opt/ml/processing/input/{name}",
        "S3DataType": kind,
        "S3InputMode": "File",
        "S3DataDistributionType": "FullyReplicated",
    }
    return {"InputName": name, "AppManaged": False, "S3Input": source}


def _output(name: str, uri: Any) -> dict[str, Any]:
    target = {"S3Uri": uri, "LocalPath": f"{_OUTPUT}/{name}", "S3UploadMode": "EndOfJob"}
    return {"OutputName": name, "AppManaged": False, "S3Output": target}


def _channel(name: str, uri: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}


def _prepared(output: str) -> dict[str, str]:
    return get(f"Steps.Prepare.ProcessingOutputConfig.Outputs['{output}'].S3Output.S3Uri")


def _range(name: str, low: str, high: str, scaling: str) -> dict[str, str]:
    return {"Name": name, "MinValue": low, "MaxValue": high, "ScalingType": scaling}


def _tags(jobs: Jobs) -> list[dict[str, str]]:
    return [{"Key": "kennel:pipeline", "Value": jobs.name}]
