"""The steps of a rehearsal, each through AWS's own API, as an operator, a caller or EventBridge would take them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from kennel.errors import KennelError
from kennel.invoke import Refused, classify, payload
from kennel.rehearsal import pictures
from kennel.rehearsal.cloud.deployment import Deployed, coverage_of, deploy
from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.follow import Waiting, execution_of, finished
from kennel.rehearsal.options import Options
from kennel.rehearsal.pictures import Picture
from kennel.rehearsal.record import Record
from kennel.rehearsal.release import approve, registered, wait_until_served
from kennel.rehearsal.report import Prediction
from kennel.rehearsal.results import Results
from kennel.upload.upload import Upload, upload_dataset

_PICTURES = 12


class Session:
    """What one step leaves behind for the next. `record` gets whatever the report shall show."""

    assembly: Path
    deployed: Deployed
    upload: Upload
    results: Results
    package: dict[str, Any]

    def __init__(self, options: Options, work: Path, record: Record, cloud: Cloud) -> None:
        self.options, self.work, self.record, self.cloud = options, work, record, cloud
        self.display = record.display
        self.waiting = Waiting(cloud.bus.undelivered)

    def deploy(self, assembly: Path) -> None:
        self.assembly = assembly
        with self.display.step(f"Deploy {self.options.stage}") as step:
            self.deployed = deploy(self.cloud, assembly, self.options.stage, progress=self.display.log)
            step.detail = f"{len(self.deployed.coverage)} resources"
        self.record.coverage = self.deployed.coverage

    def train(self, data: Path) -> None:
        """Upload `data`; its manifest starts the pipeline, which is followed to its end."""
        sagemaker = self.cloud.client("sagemaker")
        self.cloud.pipeline_overrides.update(self.record.overrides)
        with self.display.step("Upload the data") as step:
            s3, weights = self.cloud.client("s3"), self.options.weights
            self.upload = upload_dataset(data, bucket=self._bucket, s3=s3, name="rehearsal", weights=weights)
            step.detail = f"{self.upload.images:,} images, {self.upload.bytes / 1e6:.1f} MB"
        with self.display.step("Run the pipeline") as step:
            execution = execution_of(sagemaker, self._output("Pipeline", "PipelineName"), self.waiting)
            try:
                finished(sagemaker, execution)
            finally:
                self.results = Results(s3, sagemaker, execution)
                self.results.fill(self.record, self.work)
            step.detail = self.record.accuracy()
        self.package = registered(sagemaker, self._output("Data", "ModelPackageGroupName"))

    def release(self) -> None:
        with self.display.step("Release the model") as step:
            sagemaker = self.cloud.client("sagemaker")
            by_hand = approve(sagemaker, self.package)
            wait_until_served(
                self.cloud.client("cloudformation"),
                sagemaker,
                self.waiting,
                stack=f"{self.options.stage}-Hosting",
                endpoint=self._output("Hosting", "EndpointName"),
                package=self.package["ModelPackageArn"],
            )
            step.detail = "approved by the rehearsal" if by_hand else "approved by the stage"
            self.record.coverage = coverage_of(self.assembly, self.options.stage)
        self._say_what_is_not_held()

    def classify(self) -> None:
        with self.display.step("Ask the Lambda") as step:
            bucket, data = self.results.place("data")
            folder = self.work / "pictures"
            shown = pictures.held_out(self.cloud.client("s3"), bucket, f"{data}/test", folder, _PICTURES)
            shown += pictures.given(self.options.photos)
            for number, picture in enumerate(shown):
                self.record.predictions.append(self._ask(picture))
                self.display.advance((number + 1) / len(shown))
            known = [one for one in self.record.predictions if one.truth is not None]
            right = sum(one.label == one.truth for one in known)
            step.detail = f"{len(shown)} pictures, {right} of {len(known)} held-out ones right"
        for one in self.record.predictions:
            self.display.log(f"  {_line(one)}")

    def _ask(self, picture: Picture) -> Prediction:
        body = b""
        try:
            event = payload(str(picture.path))
            body = picture.path.read_bytes()
            answer = classify(self.cloud.client("lambda"), self._output("Classify", "FunctionAliasArn"), event)
        except KennelError as error:
            if isinstance(error, Refused) or picture.truth is None:
                return Prediction(picture.name, "", 0.0, truth=picture.truth, image=body, error=str(error))
            raise
        top = [(one["label"], one["probability"]) for one in answer["predictions"]]
        unsure = answer["label"] is None
        return Prediction(picture.name, *top[0], top=top, truth=picture.truth, image=body, unsure=unsure)

    @property
    def _bucket(self) -> str:
        return self._output("Data", "DataBucketName")

    def _output(self, room: str, name: str) -> str:
        return self.deployed.outputs[f"{self.options.stage}-{room}"][name]

    def _say_what_is_not_held(self) -> None:
        short = Counter((row.type, row.status) for row in self.record.coverage if row.status != "enacted")
        whole, all_ = len(self.record.coverage) - short.total(), len(self.record.coverage)
        self.display.log(
            f"Enacted as the templates say: {whole} of {all_} resources. The others, explained in the report:"
        )
        for (kind, status), count in sorted(short.items()):
            self.display.log(f"  {count} x {kind} ({status})")


def _line(one: Prediction) -> str:
    if one.error:
        return f"{one.file}: {one.error}"
    none = "none of these, at best " if one.unsure else ""
    judged = {True: " ✓", False: f" ✗ it is {one.truth}", None: ""}[one.right]
    runners_up = ", ".join(f"{label} {probability:.1%}" for label, probability in one.top[1:3])
    return f"{one.file}: {none}{one.label} {one.probability:.1%}{judged}  ({runners_up})"
