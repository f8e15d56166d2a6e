"""What a drill needs around a stage: an embedded AWS whose servers are copies with faults, and model packages."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from kennel.errors import KennelError
from kennel.rehearsal.cloud.clients import client, environment
from kennel.rehearsal.cloud.deployment import Deployed
from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.cloud.simulated_time import SimulatedTime
from kennel.rehearsal.containers.engine import Container, ContainerEngine, Process
from kennel.rehearsal.containers.local import pick_engine
from kennel.rehearsal.drill.models import MODELS, archive, pictures, write_server
from kennel.rehearsal.interfaces import DataPlane, Deployment, PipelineExecution
from kennel.rehearsal.serving.endpoints import Endpoints
from kennel.rehearsal.serving.functions import Functions

_KEY = "runs/drill/{}/model.tar.gz"
_EVALUATION = "runs/drill/evaluate"


class CopiedServers:
    """A container engine that runs, in place of the inference server, the copy that PYTHONPATH names."""

    def __init__(self, engine: ContainerEngine) -> None:
        self._engine = engine
        self.name, self.notice = engine.name, engine.notice
        self.network, self.build, self.close = engine.network, engine.build, engine.close

    def start(self, container: Container) -> Process:
        """Start the copy; -P keeps the working directory, which has the server itself, out of Python's path."""
        return self._engine.start(replace(container, entrypoint=("python3", "-P", "-m", "inference")))


class Fleets:
    """The data plane of the endpoint; `shifts` are (simulated minute, shares by configuration) of each change."""

    def __init__(self, endpoints: Endpoints, work: Path) -> None:
        self._endpoints, self._work = endpoints, work
        self.shifts: list[tuple[int, Mapping[str, float]]] = []
        self.time = SimulatedTime()

    def deploy(self, deployment: Deployment) -> None:
        """Start the servers of a model, with one thread each, so that it takes few callers to keep them busy."""
        name = deployment.model_data_url.split("/")[-2]
        model = next(one for one in MODELS if _file_name(one.name) == name)
        folder = self._work / name
        source = folder if folder.exists() else write_server(model, folder)
        variables = {**deployment.environment, "PYTHONPATH": str(source), "THREADS": "1"}
        self._endpoints.deploy(replace(deployment, environment=variables, answer_seconds=model.answer_seconds))

    def route(self, endpoint: str, shares: Mapping[str, float]) -> None:
        self.shifts.append((self.time.minute, shares))
        self._endpoints.route(endpoint, shares)


@contextmanager
def embedded(work: Path) -> Iterator[tuple[Cloud, Fleets]]:
    """Start an embedded AWS for drills and yield it with its fleets; all that it started ends with the block."""
    with ExitStack() as stack:
        engine = pick_engine()
        stack.callback(engine.close)
        functions = Functions(environment=environment)
        endpoints = Endpoints(client=client, engine=CopiedServers(engine), work=work / "endpoints")
        stack.callback(endpoints.close)
        stack.callback(functions.close)
        fleets = Fleets(endpoints, work / "servers")
        hosting = (fleets.deploy, fleets.route, endpoints.delete, endpoints.invoke)
        cloud = stack.enter_context(Cloud(DataPlane(_no_pipeline, functions.invoke, *hosting), work / "cloud"))
        fleets.time = cloud.time
        yield cloud, fleets


def _no_pipeline(execution: PipelineExecution) -> None:
    raise KennelError("Nothing is trained in a drill.")


class Packages:
    """Versions of the models in the stage's model group, as a pipeline registers them."""

    def __init__(self, cloud: Cloud, deployed: Deployed, work: Path) -> None:
        self._sagemaker, self._s3 = cloud.client("sagemaker"), cloud.client("s3")
        data = deployed.of("Data")
        self._group, self._bucket = data["ModelPackageGroupName"], data["DataBucketName"]
        self._image = deployed.of("Images")["InferenceImageUri"]
        for model in MODELS:
            body = archive(model, work / "artifacts" / _file_name(model.name))
            self._put(_KEY.format(_file_name(model.name)), body)
        # As Evaluate leaves them: photos, and the labels that a sound model gave them.
        probes = [{"file": f"{number}.image", "label": label} for number, (_, label) in enumerate(pictures())]
        self._put(f"{_EVALUATION}/probes/probes.json", json.dumps({"format": 1, "probes": probes}).encode())
        for probe, (photo, _) in zip(probes, pictures(), strict=True):
            self._put(f"{_EVALUATION}/probes/{probe['file']}", photo)

    def _put(self, key: str, body: bytes) -> None:
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)

    def register(self, model: str) -> str:
        """Register and approve a new version of `model`; return its ARN."""
        place = f"s3://{self._bucket}/{_KEY.format(_file_name(model))}"
        specification = {
            "Containers": [{"Image": self._image, "ModelDataUrl": place}],
            "SupportedContentTypes": ["image/jpeg"],
            "SupportedResponseMIMETypes": ["application/json"],
        }
        evaluation = {"ContentType": "application/json", "S3Uri": f"s3://{self._bucket}/{_EVALUATION}/evaluation.json"}
        found = self._sagemaker.create_model_package(
            ModelPackageGroupName=self._group,
            InferenceSpecification=specification,
            ModelMetrics={"ModelQuality": {"Statistics": evaluation}},
            ModelApprovalStatus="PendingManualApproval",
        )["ModelPackageArn"]
        self._sagemaker.update_model_package(ModelPackageArn=found, ModelApprovalStatus="Approved")
        return str(found)


def _file_name(model: str) -> str:
    return re.sub(r"\W+", "-", model).lower()
