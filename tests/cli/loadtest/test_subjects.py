"""What is measured: a server with an artifact on this machine, or a stage's endpoint; and the pictures sent to it."""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import numpy as np
import pytest
from PIL import Image

from kennel.aws import client
from kennel.errors import KennelError
from kennel.invoke import FILE_LIMIT
from kennel.loadtest.command import photographs
from kennel.loadtest.subject import deployed, describe_machine, local

ROOT = Path(__file__).resolve().parents[3]
FACTS: dict[str, Any] = {
    "format": 1,
    "architecture": "mean colour",
    "classes": ["red", "green", "blue"],
    "preprocessing": {"resize": 40, "crop": 32, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.2] * 3},
}


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model whose logits are the means of the colours."""
    import openvino  # type: ignore[import-untyped]

    import inference  # noqa: F401  # OpenVINO is loaded after the package that silences it

    folder, ops = tmp_path_factory.mktemp("artifact"), openvino.opset13
    image = ops.parameter([-1, 3, 32, 32], np.float32)
    image.output(0).get_tensor().set_names({"image"})
    logits = ops.matmul(ops.reduce_mean(image, [2, 3], False), np.eye(3, dtype=np.float32), False, False)
    openvino.save_model(openvino.Model([logits], [image]), folder / "model.xml", compress_to_fp16=False)
    (folder / "model.json").write_text(json.dumps(FACTS))
    (folder / "passport.json").write_text("{}")
    return folder


def pack(folder: Path, file: Path) -> Path:
    with tarfile.open(file, "w:gz") as tar:
        for each in folder.iterdir():
            tar.add(each, each.name)
    return file


@pytest.mark.parametrize("packed", [False, True])
def test_a_local_artifact_is_served_by_the_real_server_and_described(
    artifact: Path, tmp_path: Path, packed: bool
) -> None:
    place = pack(artifact, tmp_path / "model.tar.gz") if packed else artifact
    (photo, *_) = photographs([], tmp_path)
    with local(place, tmp_path) as subject:
        asked = urllib.request.Request(subject.url, photo.read_bytes(), {"Content-Type": "image/jpeg"})
        with urllib.request.urlopen(asked) as answer:
            assert len(json.load(answer)["probabilities"]) == 3
        assert (subject.instance_type, subject.instances, subject.machine) == ("", 1, describe_machine())
        assert subject.runtime == "openvino"
        assert subject.precision in ("float32", "bfloat16")
        told = {"architecture": "mean colour", "image_size": 32, "classes": 3}
        assert subject.model == told | {"passport_sha256": hashlib.sha256(b"{}").hexdigest()}
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(subject.url)


def _port(log: Path) -> int:
    """Return the port that the server logged, 0 before it did."""
    found = re.search(r'"port": ?(\d+)', log.read_text())
    return int(found[1]) if found else 0


def test_a_measurement_that_is_stopped_leaves_neither_server_nor_files(artifact: Path, tmp_path: Path) -> None:
    code = "from kennel.cli import app; app(prog_name='kennel')"
    command = [sys.executable, "-c", code, "loadtest", str(artifact), "--p99", "60000"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        while not (found := [*map(_port, tmp_path.glob("*/server.log"))]) or not found[0]:
            assert process.poll() is None
            time.sleep(0.02)
        (port,) = found
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "kennel: stopped.\n")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()


def test_a_server_that_does_not_start_says_why(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.json").write_text((artifact / "model.json").read_text())
    with (
        pytest.raises(KennelError, match=r"The server did not start: .*model\.xml"),
        local(tmp_path / "broken", tmp_path),
    ):
        pass


@pytest.mark.parametrize("name", ["gone.tar.gz", "text"])
def test_what_is_no_artifact_is_refused_before_anything_starts(tmp_path: Path, name: str) -> None:
    (tmp_path / "text").write_text("no archive")
    refused = pytest.raises(KennelError, match=r"cannot be read|is no whole model\.tar\.gz")
    with refused, local(tmp_path / name, tmp_path):
        pass


def test_a_hostile_archive_is_refused_and_nothing_of_it_written(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as tar:
        tar.add(__file__, "../escaped")
    with pytest.raises(KennelError, match="no plain file name"), local(tmp_path / "evil.tar.gz", tmp_path / "work"):
        pass
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"architecture": "x", "classes": [], "preprocessing": 3}'])
def test_a_folder_without_a_models_description_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_text(text)
    (tmp_path / "work").mkdir()
    with pytest.raises(KennelError, match="holds no model"), local(tmp_path, tmp_path / "work"):
        pass


def test_made_pictures_are_different_jpegs_of_a_web_photographs_size_and_always_the_same(tmp_path: Path) -> None:
    made = photographs([], tmp_path)
    first = [file.read_bytes() for file in made]
    assert len(set(first)) == 8
    assert all(30_000 < len(body) < 60_000 for body in first)
    with Image.open(made[0]) as picture:
        assert (picture.format, picture.size) == ("JPEG", (500, 375))
    assert [file.read_bytes() for file in photographs([], tmp_path)] == first


@pytest.mark.parametrize("size", [None, 0, FILE_LIMIT + 1])
def test_a_picture_that_cannot_be_sent_is_named(tmp_path: Path, size: int | None) -> None:
    if size is not None:
        (tmp_path / "x.jpg").write_bytes(bytes(size))
    with pytest.raises(KennelError, match=r"--photo .*x\.jpg must be a picture file of at most 4\.7 MB"):
        photographs([tmp_path / "x.jpg"], tmp_path)


@pytest.fixture
def endpoint(aws: str) -> tuple[str, str]:
    """A stage with an endpoint of three instances, and the ARN of its model package."""
    stage, sagemaker = f"T{uuid.uuid4().hex[:8]}", boto3.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName=stage)
    package = sagemaker.create_model_package(
        ModelPackageGroupName=stage,
        CustomerMetadataProperties={"model": "resnet50", "image_size": "224", "passport_sha256": "ab12"},
    )["ModelPackageArn"]
    container = {"ModelPackageName": package, "Environment": {"RUNTIME": "openvino", "PRECISION": "int8"}}
    role = "arn:aws:iam::123456789012:role/any"
    sagemaker.create_model(ModelName=stage, PrimaryContainer=container, ExecutionRoleArn=role)
    variant: dict[str, Any] = {"VariantName": "AllTraffic", "ModelName": stage, "InstanceType": "ml.m5.large"}
    variant |= {"InitialInstanceCount": 3, "InitialVariantWeight": 1.0}
    capture = {"EnableCapture": True, "InitialSamplingPercentage": 40, "DestinationS3Uri": "s3://b/capture"}
    capture["CaptureOptions"] = [{"CaptureMode": "Input"}]
    sagemaker.create_endpoint_config(EndpointConfigName=stage, ProductionVariants=[variant], DataCaptureConfig=capture)
    sagemaker.create_endpoint(EndpointName=stage.lower(), EndpointConfigName=stage)
    _stack(stage, stage.lower())
    return stage, package


def _stack(stage: str, endpoint: str) -> None:
    resources = {"B": {"Type": "AWS::S3::Bucket"}}
    body = {"Resources": resources, "Outputs": {"EndpointName": {"Value": endpoint}}}
    boto3.client("cloudformation").create_stack(StackName=f"Kennel-{stage}-Hosting", TemplateBody=json.dumps(body))


def test_a_deployed_endpoint_is_described_with_type_instances_model_and_precision(
    endpoint: tuple[str, str], aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.replace("127.0.0.1", "0.0.0.0"))  # not known to be this machine
    stage, package = endpoint
    subject = deployed(stage, client)
    assert (subject.endpoint, subject.url) == (stage.lower(), "")
    assert (subject.instance_type, subject.instances, subject.captured_percent) == ("ml.m5.large", 3, 40)
    assert subject.machine == "ml.m5.large in us-east-1"
    assert (subject.runtime, subject.precision) == ("openvino", "int8")
    assert subject.model == {
        "architecture": "resnet50",
        "image_size": 224,
        "passport_sha256": "ab12",
        "package": package,
    }


def test_a_rehearsed_endpoint_is_this_machine_and_no_instance(endpoint: tuple[str, str]) -> None:
    subject = deployed(endpoint[0], client)
    assert (subject.instance_type, subject.instances) == ("", 1)
    assert subject.machine == f"{describe_machine()}, rehearsed"


def test_a_stage_without_a_released_model_is_told_what_to_do(aws: str) -> None:
    stage = f"T{uuid.uuid4().hex[:8]}"
    _stack(stage, "nobody-made-it")
    with pytest.raises(KennelError, match=f"no endpoint nobody-made-it yet: release a model first .*--stage {stage}"):
        deployed(stage, client)
