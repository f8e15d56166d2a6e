"""The steps of a rehearsal, each through AWS's own API, as an operator, a caller or EventBridge would take them."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kennel.errors import KennelError
from kennel.invoke import Refused, classify, payload
from kennel.rehearsal.cloud.deployment import Deployed, coverage_of, deploy
from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.options import Options
from kennel.rehearsal.record import Record, Results
from kennel.rehearsal.report import Prediction
from kennel.rehearsal.samples import Picture, given_pictures, held_out_pictures
from kennel.train.follow import Follower
from kennel.upload.upload import Upload, upload_dataset

_PICTURES = 12
_POLL_S = 0.25  # of the embedded AWS, in this process
_RELEASE_S = 120  # until an event has led to what it sets off


class Session:
    """The steps of one rehearsal; each leaves here what the next one needs, and in `record` what is reported."""

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
            self._follow(execution_of(sagemaker, self._output("Pipeline", "PipelineName"), self.waiting))
            step.detail = self.record.accuracy()
        self.package = registered(sagemaker, self._output("Data", "ModelPackageGroupName"))

    def _follow(self, execution: str) -> None:
        """Follow the run as `kennel train` does, and record what it left; raises KennelError with its failure."""
        epochs = int(self.options.chosen["epochs"])
        follower = Follower(self.cloud.client, execution, self.display, epochs=epochs, poll_s=_POLL_S)
        try:
            ending = follower.run()
        finally:
            self.record.epochs, self.record.trials = follower.epochs, follower.trials
            self.results = Results(self.cloud.client("s3"), self.cloud.client("sagemaker"), execution)
            self.results.fill(self.record, self.work)
        if ending.status != "Succeeded":
            for line in ending.last_lines:
                self.display.log(line)
            raise KennelError(ending.sentence)

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
        self._say_what_is_not_enacted()

    def classify(self) -> None:
        with self.display.step("Invoke the Lambda") as step:
            bucket, data = self.results.place("data")
            folder = self.work / "pictures"
            shown = held_out_pictures(self.cloud.client("s3"), bucket, f"{data}/test", folder, _PICTURES)
            shown += given_pictures(self.options.photos)
            for number, picture in enumerate(shown):
                self.record.predictions.append(self._classified(picture))
                self.display.advance((number + 1) / len(shown))
            known = [one for one in self.record.predictions if one.truth is not None]
            right = sum(one.label == one.truth for one in known)
            step.detail = f"{len(shown)} pictures, {right} of {len(known)} of the test split right"
        for one in self.record.predictions:
            self.display.log(f"  {_line(one)}")

    def _classified(self, picture: Picture) -> Prediction:
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

    def _output(self, stack: str, name: str) -> str:
        return self.deployed.outputs[f"{self.options.stage}-{stack}"][name]

    def _say_what_is_not_enacted(self) -> None:
        others: dict[str, Counter[str]] = {}
        for row in self.record.coverage:
            if row.status != "enacted":
                others.setdefault(row.status, Counter())[row.type] += 1
        all_ = len(self.record.coverage)
        enacted = all_ - sum(types.total() for types in others.values())
        self.display.log(f"Enacted: {enacted} of {all_} resources. The others, explained in the report:")
        for status, types in sorted(others.items()):
            listed = ", ".join(f"{count} {type_}" for type_, count in sorted(types.items()))
            self.display.log(f"  {status}: {listed}")


def _line(one: Prediction) -> str:
    if one.error:
        return f"{one.file}: {one.error}"
    none = "none of these, at best " if one.unsure else ""
    judged = {True: " ✓", False: f" ✗ it is {one.truth}", None: ""}[one.right]
    runners_up = ", ".join(f"{label} {probability:.1%}" for label, probability in one.top[1:3])
    return f"{one.file}: {none}{one.label} {one.probability:.1%}{judged}  ({runners_up})"


@dataclass(frozen=True)
class Waiting:
    """Waits for what an event leads to; `undelivered` are the events that a rule's target has refused so far."""

    undelivered: Sequence[str]

    def wait(self, what: str, ready: Callable[[], Any], *, seconds: float) -> Any:
        """Call `ready` until it returns something true and return that; raises KennelError when it will not."""
        deadline = time.monotonic() + seconds
        while not (answer := ready()):
            if self.undelivered:
                raise KennelError(f"{what} did not happen: {self.undelivered[0]}")
            if time.monotonic() > deadline:
                raise KennelError(f"{what} did not happen within {seconds:.0f} s.")
            time.sleep(0.1)
        return answer


def execution_of(sagemaker: Any, pipeline: str, waiting: Waiting) -> str:
    """Return the ARN of the pipeline's first execution, which the upload's manifest starts through EventBridge."""

    def started() -> Any:
        found = sagemaker.list_pipeline_executions(PipelineName=pipeline)["PipelineExecutionSummaries"]
        return found and found[0]["PipelineExecutionArn"]

    return str(waiting.wait("The start of the pipeline by the upload's manifest", started, seconds=_RELEASE_S))


def registered(sagemaker: Any, group: str) -> dict[str, Any]:
    """Return the description of the newest model package of `group`."""
    newest = sagemaker.list_model_packages(
        ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending", MaxResults=1
    )["ModelPackageSummaryList"]
    if not newest:
        raise KennelError(f"The pipeline registered no model in {group}.")
    about: dict[str, Any] = sagemaker.describe_model_package(ModelPackageName=newest[0]["ModelPackageArn"])
    return about


def approve(sagemaker: Any, package: dict[str, Any]) -> bool:
    """Approve `package` as an operator would, unless the stage does it by itself; return whether it was done."""
    if package["ModelApprovalStatus"] == "Approved":
        return False
    sagemaker.update_model_package(ModelPackageArn=package["ModelPackageArn"], ModelApprovalStatus="Approved")
    return True


def wait_until_served(
    cloudformation: Any, sagemaker: Any, waiting: Waiting, *, stack: str, endpoint: str, package: str
) -> None:
    """Wait until the promote Lambda's stack update has ended and the endpoint serves `package`.

    Raises KennelError with CloudFormation's or SageMaker's reason when it ends otherwise.
    """

    def ended() -> Any:
        about = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        parameters = {one["ParameterKey"]: one["ParameterValue"] for one in about.get("Parameters", [])}
        status = about["StackStatus"]
        if "ROLLBACK" in status or "FAILED" in status:
            raise KennelError(f"The release failed, {stack} is {status}: {about.get('StackStatusReason', 'no reason')}")
        return parameters.get("ModelPackageArn") == package and status.endswith("_COMPLETE")

    waiting.wait("The release by the promote Lambda", ended, seconds=_RELEASE_S)
    about = sagemaker.describe_endpoint(EndpointName=endpoint)
    if about["EndpointStatus"] != "InService":
        raise KennelError(
            f"Endpoint {endpoint} is {about['EndpointStatus']}: {about.get('FailureReason', 'no reason')}"
        )
