"""The processing jobs' requests: CreateProcessingJob without the name."""

from collections.abc import Sequence
from typing import Any

from stacks.pipeline.jobs import HOUR, Jobs, prepared
from stacks.pipeline.language import execution_id, get, join

_OUTPUT = "/opt/ml/processing/output"


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
    inputs = [_input("model", model), _input("test", join("/", prepared("data"), "test"))]
    return _processing(
        jobs, "evaluate", inputs, [_output("evaluation", join("/", jobs.run_uri("evaluate"), execution_id()))]
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
        "StoppingCondition": {"MaxRuntimeInSeconds": 4 * HOUR},
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
