"""The real programs of training/ and inference/ through the jobs and an endpoint, from images to an answer."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import numpy as np
import pytest
from moto import mock_aws
from PIL import Image

from kennel.rehearsal.containers import ContainerEngine, image_engine, pick_engine
from kennel.rehearsal.interfaces import Deployment, EndpointCall, PipelineExecution
from kennel.rehearsal.jobs.events import StepEvent
from kennel.rehearsal.jobs.execution import PipelineRunner
from kennel.rehearsal.serving.endpoints import Endpoints
from tests.rehearsal.base_image import base_image
from training.metrics import METRIC_DEFINITIONS

ROLE = "arn:aws:iam::123456789012:role/job"
HYPERPARAMETERS = {"model": "resnet18", "image_size": "16", "epochs": "2", "batch_size": "8", "seed": "1"}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="data")
        yield client


def _upload(s3: Any) -> None:
    """Two classes, bright and dark, as the upload packs them."""
    import tarfile

    random, packed = np.random.default_rng(0), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for number in range(48):
            name, low = ("bright", 160) if number % 2 else ("dark", 0)
            picture = io.BytesIO()
            Image.fromarray(random.integers(low, low + 90, (20, 20, 3), dtype=np.uint8)).save(picture, "PNG")
            info = tarfile.TarInfo(f"{name}/{number}.png")
            info.size = len(picture.getvalue())
            tar.addfile(info, io.BytesIO(picture.getvalue()))
    facts = {
        "name": "d",
        "fingerprint": "f" * 16,
        "images": 48,
        "bytes": 1,
        "classes": ["bright", "dark"],
        "weights": None,
    }
    s3.put_object(Bucket="data", Key="datasets/d/f/images-00000.tar", Body=packed.getvalue())
    s3.put_object(Bucket="data", Key="datasets/d/f/dataset.json", Body=json.dumps(facts).encode())
    manifest = [{"prefix": "s3://data/datasets/d/f/"}, "images-00000.tar", "dataset.json"]
    s3.put_object(Bucket="data", Key="datasets/d/f.manifest", Body=json.dumps(manifest).encode())


def _processing(name: str, command: str, inputs: dict[str, tuple[Any, str]], outputs: dict[str, str]) -> dict[str, Any]:
    sources = [
        {
            "InputName": key,
            "S3Input": {"S3Uri": uri, "S3DataType": kind, "LocalPath": f"/opt/ml/processing/input/{key}"},
        }
        for key, (uri, kind) in inputs.items()
    ]
    targets = [
        {
            "OutputName": key,
            "S3Output": {"S3Uri": uri, "LocalPath": f"/opt/ml/processing/output/{key}", "S3UploadMode": "EndOfJob"},
        }
        for key, uri in outputs.items()
    ]
    arguments = {
        "AppSpecification": {"ImageUri": "t", "ContainerEntrypoint": ["python3", "-m", "training", command]},
        "RoleArn": ROLE,
        "ProcessingInputs": sources,
        "ProcessingOutputConfig": {"Outputs": targets},
        "ProcessingResources": {
            "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
    }
    return {"Name": name, "Type": "Processing", "Arguments": arguments}


def _training(instances: int) -> dict[str, Any]:
    channels = {"train": "data/train", "valid": "data/valid", "weights": "weights"}
    arguments = {
        "HyperParameters": HYPERPARAMETERS,
        "AlgorithmSpecification": {
            "TrainingImage": "t",
            "TrainingInputMode": "File",
            "MetricDefinitions": METRIC_DEFINITIONS,
        },
        "RoleArn": ROLE,
        "InputDataConfig": [
            {
                "ChannelName": name,
                "DataSource": {"S3DataSource": {"S3Uri": f"s3://data/prepared/{place}", "S3DataType": "S3Prefix"}},
            }
            for name, place in channels.items()
        ],
        "OutputDataConfig": {"S3OutputPath": "s3://data/runs"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        "CheckpointConfig": {"S3Uri": "s3://data/checkpoints"},
        "EnableManagedSpotTraining": True,
    }
    return {"Name": "Train", "Type": "Training", "DependsOn": ["Prepare"], "Arguments": arguments}


def _walk(s3: Any, engine: ContainerEngine, work: Path, *, instances: int) -> list[StepEvent]:
    """Prepare, train with an interruption, evaluate, serve, ask; return what was reported."""
    _upload(s3)
    prepared = {name: f"s3://data/prepared/{name}" for name in ("data", "weights", "report")}
    model = {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}
    inputs = {"model": (model, "S3Prefix"), "test": ("s3://data/prepared/data/test", "S3Prefix")}
    steps = [
        _processing("Prepare", "prepare", {"dataset": ("s3://data/datasets/d/f.manifest", "ManifestFile")}, prepared),
        _training(instances),
        _processing("Evaluate", "evaluate", inputs, {"evaluation": "s3://data/evaluation"}),
    ]
    events: list[StepEvent] = []
    arn = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/real"
    execution = PipelineExecution(arn, "p", ROLE, {"Steps": steps}, {})

    def client(service: str, role: str | None) -> Any:
        return boto3.client(service, region_name="us-east-1")

    PipelineRunner(
        client=client, work=work, containers=engine, on_event=events.append, interrupt_spot=True, seed=0
    ).run(execution)
    told = "\n".join(event.detail for event in events)
    assert execution.status == "Succeeded", f"{execution.failure_reason}\n{told}"
    _serve(s3, Endpoints(client=client, engine=engine, work=work / "models"))
    return events


def _serve(s3: Any, endpoints: Endpoints) -> None:
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket="data", Prefix="runs/")["Contents"]]
    url = "s3://data/" + next(key for key in keys if key.endswith("model.tar.gz"))
    try:
        endpoints.deploy(Deployment("e", "AllTraffic", "i", url, ROLE, {"MODEL_PACKAGE_ARN": "arn:package"}, 1))
        picture = io.BytesIO()
        Image.new("RGB", (20, 20), (200, 200, 200)).save(picture, "PNG")
        answer = endpoints.invoke(EndpointCall("e", picture.getvalue(), {"Content-Type": "image/png"}))
    finally:
        endpoints.close()
    assert answer.status == 200, answer.body
    value = json.loads(answer.body)
    assert value["classes"] == ["bright", "dark"]
    assert sum(value["probabilities"]) == pytest.approx(1, abs=1e-4)
    assert value["model"] == "arn:package"


def _epochs(events: list[StepEvent]) -> list[str]:
    return [event.detail.split()[0] for event in events if event.kind == "metric"]


@pytest.mark.torch
@pytest.mark.long
def test_the_real_programs_run_from_images_to_an_answer_over_an_interruption(s3: Any, tmp_path: Path) -> None:
    events = _walk(s3, pick_engine(), tmp_path, instances=1)
    assert any("spot instance was taken away" in event.detail for event in events)
    assert _epochs(events) == ["epoch=1", "epoch=2"]  # the first is not learned again
    evaluation = json.loads(s3.get_object(Bucket="data", Key="evaluation/evaluation.json")["Body"].read())
    assert 0 <= evaluation["metrics"]["accuracy"]["value"] <= 1


@pytest.mark.torch
@pytest.mark.long
def test_two_hosts_train_one_model(s3: Any, tmp_path: Path) -> None:
    events = _walk(s3, pick_engine(), tmp_path, instances=2)
    assert _epochs(events) == ["epoch=1", "epoch=2"]


@pytest.mark.torch
@pytest.mark.long
def test_the_same_happens_inside_the_real_images(s3: Any, tmp_path: Path) -> None:
    engine = image_engine(tmp_path / "scratch", base_image(tmp_path))
    try:
        events = _walk(s3, engine, tmp_path, instances=1)
    finally:
        engine.close()
    assert _epochs(events) == ["epoch=1", "epoch=2"]
