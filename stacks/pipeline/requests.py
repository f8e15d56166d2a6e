"""The requests of the pipeline's jobs, without names: CreateProcessingJob, CreateTrainingJob and the tuning job's."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from stacks.config import TrainingSettings
from training.hyperparameters import parameter_name, settable
from training.metrics import METRIC_DEFINITIONS

HOUR = 3600  # seconds
_PROCESSING_HOURS = 4  # at most; a stage may allow its jobs less
_OUTPUT = "/opt/ml/processing/output"


def get(path: str) -> dict[str, str]:
    """Return a reference to what is known when the pipeline runs: a parameter, a step's property, a variable."""
    return {"Get": path}


def join(separator: str, *values: Any) -> dict[str, Any]:
    """Return the text made of `values`; it also turns a number into the string that a hyperparameter must be."""
    return {"Std:Join": {"On": separator, "Values": list(values)}}


EXECUTION_ID = get("Execution.PipelineExecutionId")


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """What all jobs of a stage have in common. Texts may be CloudFormation tokens; `vpc` None: no VPC."""

    name: str
    image: str
    role_arn: str
    bucket: str
    key_arn: str
    vpc: dict[str, Any] | None
    settings: TrainingSettings

    def run_uri(self, kind: str) -> str:
        """Return the S3 URI where jobs of that kind (train, evaluate, tune, checkpoints) write."""
        return f"s3://{self.bucket}/runs/{self.name}/{kind}"

    @property
    def volume_key(self) -> dict[str, str]:
        return {"VolumeKmsKeyId": self.key_arn} if self.settings.volume_key else {}

    @property
    def environment(self) -> dict[str, str]:
        """Return what the program records about the model's origin and cannot find out by itself."""
        return {"TRAINING_IMAGE": self.image}

    @property
    def vpc_config(self) -> dict[str, Any]:
        return {"VpcConfig": self.vpc} if self.vpc else {}

    @property
    def tags(self) -> list[dict[str, str]]:
        return [{"Key": "kennel:pipeline", "Value": self.name}]


def preparation(jobs: Jobs) -> dict[str, Any]:
    """Return the request of Prepare, which verifies, splits and packs the uploaded data set.

    Its arguments are part of its output's prefix: SageMaker's cache compares addresses, so another Mode or another
    choice of Duplicates over the same data must have another one.
    """
    dataset = _input("dataset", join("/", f"s3://{jobs.bucket}", get("Parameters.DataManifest")), kind="ManifestFile")
    manifest, duplicates, mode = (get(f"Parameters.{name}") for name in ("DataManifest", "Duplicates", "Mode"))
    folder = (f"s3://{jobs.bucket}/prepared/", manifest, "/", duplicates, "-", mode)
    outputs = [_output(name, join("", *folder, f"/{name}")) for name in ("data", "weights", "report")]
    arguments = ["--duplicates", duplicates, "--mode", mode]
    return _processing(jobs, "prepare", [dataset], outputs, arguments)


def evaluation(jobs: Jobs, *, model: Any) -> dict[str, Any]:
    """Return the request of Evaluate, which measures `model` (URI of its model.tar.gz) on the test split."""
    inputs = [_input("model", model), _input("test", join("/", prepared("data"), "test"))]
    return _processing(
        jobs, "evaluate", inputs, [_output("evaluation", join("/", jobs.run_uri("evaluate"), EXECUTION_ID))]
    )


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
        "StoppingCondition": {"MaxRuntimeInSeconds": min(_PROCESSING_HOURS, jobs.settings.max_runtime_hours) * HOUR},
        "NetworkConfig": {
            "EnableNetworkIsolation": True,
            "EnableInterContainerTrafficEncryption": True,
            **jobs.vpc_config,
        },
        "Tags": jobs.tags,
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


def training(jobs: Jobs, *, spot: bool) -> dict[str, Any]:
    """Return the request of one training job. TuneTrials is its number of trials in head mode, 0 in whole mode."""
    return {
        "HyperParameters": hyperparameters() | {"trials": join("", get("Parameters.TuneTrials"))},
        **_learning_job(jobs, "train", spot=spot),
        # Runs on the same data share this folder: a later one finds the features; checkpoints know whose they are.
        "CheckpointConfig": {
            "S3Uri": join("/", jobs.run_uri("checkpoints"), get("Parameters.DataManifest")),
            "LocalPath": "/opt/ml/checkpoints",
        },
        "Tags": jobs.tags,
    }


def tuning(jobs: Jobs, *, spot: bool) -> dict[str, Any]:
    """Return the request of the search in whole-network mode.

    Trials share no checkpoints, so an interrupted one starts from the beginning.
    """
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
            **_learning_job(jobs, "tune", spot=spot),
        },
        "Tags": jobs.tags,
    }


def _learning_job(jobs: Jobs, kind: str, *, spot: bool) -> dict[str, Any]:
    """Return what a training job and the trials of a tuning job have in common."""
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


def hyperparameters(*, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Return name -> pipeline parameter as text, for every hyperparameter that has one and is not left out."""
    names = [each.name for each in settable() if each.name not in leave_out]
    return {name: join("", get(f"Parameters.{parameter_name(name)}")) for name in names}


def prepared(output: str) -> dict[str, str]:
    """Return the S3 URI of an output of Prepare: data, weights or report."""
    return get(f"Steps.Prepare.ProcessingOutputConfig.Outputs['{output}'].S3Output.S3Uri")
