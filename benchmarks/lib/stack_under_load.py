"""The whole chain on this machine: the Prod stage in the embedded AWS, with a model released through it.

The model is so small that what it must answer can be worked out without it: its logits are the mean colour of a picture
times a table. The truth is taken with training's transform and numpy: no part of what answers takes part in it.
"""

import io
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]
import numpy as np
import psutil  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

import inference  # noqa: F401  (keeps OpenVINO from reporting to its makers when it is imported after this)
from benchmarks.lib.fault_proxy import FaultProxy, Mix
from kennel.rehearsal.cloud import lambda_functions
from kennel.rehearsal.cloud.clients import REGION
from kennel.rehearsal.cloud.deployment import deploy
from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.containers.local import pick_engine
from kennel.rehearsal.interfaces import DataPlane, PipelineExecution
from kennel.rehearsal.rehearse import synthesize
from kennel.rehearsal.serving.endpoints import Endpoints
from kennel.rehearsal.serving.functions import Functions
from kennel.rehearsal.session import wait_until_served
from kennel.releases import give_approval
from training.transform import Preprocessing, open_rgb, to_array

STAGE = "Prod"


@dataclass(frozen=True)
class StackUnderLoad:
    """`client`: of Lambda, with a connection for each caller; `proxy`: between the function and the endpoint."""

    client: Any
    function: str
    proxy: FaultProxy


@contextmanager
def released(work: Path, mix: Mix, concurrency: int) -> Iterator[StackUnderLoad]:
    """Everything that this starts ends with the block. `concurrency`: sandboxes of one function at most."""
    with ExitStack() as stack:
        engine = pick_engine()
        stack.callback(engine.close)
        cloud: Cloud
        proxy: FaultProxy

        def environment(role_arn: str) -> dict[str, str]:
            return {**cloud.environment(role_arn), "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": proxy.url}

        functions = Functions(environment=environment, concurrency=concurrency)
        endpoints = Endpoints(
            client=lambda service, role: cloud.client(service, role), engine=engine, work=work / "endpoints"
        )
        stack.callback(endpoints.close)
        stack.callback(functions.close)
        hosting = (endpoints.deploy, endpoints.route, endpoints.delete, endpoints.invoke)
        data_plane = DataPlane(_no_pipeline, functions.invoke, *hosting)
        cloud = stack.enter_context(Cloud(data_plane, work / "cloud"))
        stack.enter_context(patch.object(lambda_functions, "client", lambda service, role_arn: _NoLogs()))
        config = Config(retries={"total_max_attempts": 1}, read_timeout=120, max_pool_connections=concurrency)
        keys = cloud.environment()
        session = boto3.session.Session(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], region_name=REGION)
        client = session.client("lambda", endpoint_url=cloud.url, config=config)
        place = urlsplit(cloud.url)
        proxy = stack.enter_context(FaultProxy((str(place.hostname), int(place.port or 0)), mix))
        yield StackUnderLoad(client, _release(cloud, work), proxy)


class _NoLogs:
    """Of Lambda's log lines: moto would spend more time on them than all else here on the answers, and fall behind."""

    def create_log_stream(self, **request: str) -> None:
        pass

    def put_log_events(self, **request: Any) -> None:
        pass


def _no_pipeline(execution: PipelineExecution) -> None:
    raise RuntimeError("Nothing is trained here.")


def _release(cloud: Cloud, work: Path) -> str:
    """Deploy the stage and approve a model in it; return the ARN of the function's alias."""
    deployed = deploy(cloud, synthesize(work / "cdk.out"), STAGE)
    data, sagemaker = deployed.of("Data"), cloud.client("sagemaker")
    archive = work / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(write_artifact(work / "artifact"), ".")
    key = "runs/kennel-prod/train/load/output/model.tar.gz"
    cloud.client("s3").put_object(Bucket=data["DataBucketName"], Key=key, Body=archive.read_bytes())
    container = {
        "Image": deployed.of("Images")["InferenceImageUri"],
        "ModelDataUrl": f"s3://{data['DataBucketName']}/{key}",
    }
    package = sagemaker.create_model_package(
        ModelPackageGroupName=data["ModelPackageGroupName"],
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["image/jpeg"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        ModelApprovalStatus="PendingManualApproval",
    )["ModelPackageArn"]
    give_approval(cloud.client, package, "Approved by the benchmark.")
    endpoint = deployed.of("Hosting")["EndpointName"]
    wait_until_served(cloud, stack=deployed.name("Hosting"), endpoint=endpoint, package=package)
    return deployed.of("Classify")["FunctionAliasArn"]


def servers() -> list[psutil.Process]:
    """Return the endpoint's server processes: this process's descendants, but for those of another rehearsal."""
    found = []
    for child in psutil.Process().children():
        try:
            own = [] if "rehearse" in child.cmdline() else [child, *child.children(recursive=True)]
            found += [process for process in own if process.cmdline()[1:4] == ["-m", "inference", "serve"]]
        except psutil.Error:  # it ended meanwhile
            continue
    return found


@contextmanager
def killing(every: float, seconds: float) -> Iterator[list[tuple[float, int]]]:
    """For so many seconds of the block, SIGKILL for one server and for all of them in turns, each `every` seconds.

    The list gets (seconds of time.monotonic(), how many were killed).
    """
    kills: list[tuple[float, int]] = []
    done = threading.Event()

    def kill() -> None:
        until = time.monotonic() + seconds
        while not done.wait(every) and time.monotonic() < until:
            victims = servers()
            victims = victims if len(kills) % 2 else victims[:1]
            for victim in victims:
                victim.kill()
            kills.append((time.monotonic(), len(victims)))

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield kills
    finally:
        done.set()
        thread.join()


CLASSES = ["red", "green", "blue", "cyan", "magenta", "yellow", "white", "black"]
TOLERANCE = 0.02  # of a probability: bfloat16's rounding stays well below
_APART = 4 * TOLERANCE  # two pictures' answers at least: one that went to the wrong caller shows
_HOW = Preprocessing.for_image_size(64)
_TABLE = np.random.default_rng(4).normal(0, 1.2, (3, len(CLASSES))).astype(np.float32)  # [colours, classes]


@dataclass(frozen=True)
class Picture:
    """`probabilities` [classes], or the `refusal` (code, status) that it must get."""

    body: bytes
    probabilities: NDArray[np.float64] | None = None
    refusal: tuple[str, int] | None = None

    def fits(self, answer: Any) -> bool:
        """Whether these are the probabilities of this picture, in the order of the classes."""
        given = answer.get("probabilities") if isinstance(answer, dict) else None
        if self.probabilities is None or not isinstance(given, list) or len(given) != len(self.probabilities):
            return False
        best = CLASSES[int(self.probabilities.argmax())]
        near = bool(np.abs(np.asarray(given, np.float64) - self.probabilities).max() <= TOLERANCE)
        return near and answer.get("label") == best == answer["predictions"][0]["label"]


def write_artifact(folder: Path) -> Path:
    """Write model.json, model.xml and model.bin as docs/contracts/model-artifact.md has them."""
    import openvino  # type: ignore[import-untyped]

    ops = openvino.opset13
    folder.mkdir(parents=True)
    image = ops.parameter([-1, 3, _HOW.crop, _HOW.crop], np.float32)
    image.output(0).get_tensor().set_names({"image"})
    logits = ops.matmul(ops.reduce_mean(image, [2, 3], False), _TABLE, False, False)
    openvino.save_model(openvino.Model([logits], [image]), folder / "model.xml", compress_to_fp16=False)
    facts = {"format": 1, "architecture": "mean colour", "classes": CLASSES, "preprocessing": _HOW.to_dict()}
    (folder / "model.json").write_text(json.dumps(facts))
    return folder


def pictures(count: int) -> list[Picture]:
    """Return JPEG files of one colour with noise, no two with like answers; the last is cut short, to be refused."""
    chance = np.random.default_rng(0)
    found: list[Picture] = []
    known = np.empty((0, len(CLASSES)))
    while len(found) < count - 1:
        body, probabilities = _picture(chance)
        best, next_best = np.sort(probabilities)[:-3:-1]
        if best - next_best > _APART and (np.abs(known - probabilities).max(1) > _APART).all():
            found.append(Picture(body, probabilities))
            known = np.vstack([known, probabilities])
    body = found[0].body
    return [*found, Picture(body[: len(body) // 2], refusal=("not_an_image", 400))]


def _picture(chance: np.random.Generator) -> tuple[bytes, NDArray[np.float64]]:
    noise = chance.normal(0, 12, (120, 160, 3))
    pixels = (chance.uniform(0, 255, 3) + noise).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    logits = to_array(open_rgb(file.getvalue()), _HOW).mean((1, 2), np.float64) @ _TABLE
    odds = np.exp(logits - logits.max())
    return file.getvalue(), odds / odds.sum()
