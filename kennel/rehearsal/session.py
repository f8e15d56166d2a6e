"""The steps of a rehearsal, each through AWS's own API, as an operator, a caller or EventBridge would take them."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from kennel.compare.records import accuracy_line
from kennel.console import Display
from kennel.errors import KennelError
from kennel.invoke import Refused, classify, payload, sendable, verdict_of
from kennel.pipeline_steps import steps_of
from kennel.rehearsal.cloud.deployment import Deployed, coverage_of, deploy
from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.options import Options
from kennel.rehearsal.report import Prediction, RehearsalReport, refused, verdicts
from kennel.rehearsal.samples import Picture, given_pictures, held_out_pictures
from kennel.releases import give_approval, read_entries
from kennel.train.follow import Follower
from kennel.upload.upload import upload_dataset

_PICTURES = 12
_VERDICTS = {"right": "right", "wrong": "wrong", "none_of_these": "'none of these'", "not_sure": "'not sure'"}
_POLL_S = 0.25  # of the embedded AWS, in this process
_RELEASE_S = 120  # until an event has led to what it sets off


class Session:
    """The steps of one rehearsal; each leaves here what the next one needs, and in `report` what it found out."""

    assembly: Path
    deployed: Deployed
    outputs: "JobOutputs"
    package: dict[str, Any]

    def __init__(
        self,
        options: Options,
        work: Path,
        report: RehearsalReport,
        display: Display,
        cloud: Cloud,
        held_out: Sequence[Picture] = (),
    ) -> None:
        """`held_out`: pictures of classes that training does not see."""
        self.options, self.work, self.report, self.display, self.cloud = options, work, report, display, cloud
        self._held_out = held_out
        self._followed: list[str] = []  # ARNs of pipeline executions

    def deploy(self, assembly: Path) -> None:
        with self.display.step(f"Deploy {self.options.stage}") as step:
            self.deployed_as(assembly, deploy(self.cloud, assembly, self.options.stage, progress=self.display.log))
            step.detail = f"{len(self.deployed.coverage)} resources"

    def deployed_as(self, assembly: Path, deployed: Deployed) -> None:
        """Go on with the stage as it has been deployed from `assembly`."""
        self.assembly, self.deployed = assembly, deployed
        self.report.coverage = deployed.coverage

    def train(self, data: Path) -> None:
        """Upload `data`; its manifest starts the pipeline, which is followed to its end."""
        self.cloud.pipeline_overrides.update(self.report.overrides)
        with self.display.step("Upload the data") as step:
            s3, bucket = self.cloud.client("s3"), self.output("Data", "DataBucketName")
            sent = upload_dataset(
                data, bucket=bucket, s3=s3, name="rehearsal", weights=self.options.weights, again=bool(self._followed)
            )
            step.detail = f"{sent.images:,} images, {sent.bytes / 1e6:.1f} MB"
        with self.display.step("Run the pipeline") as step:
            self._follow(self._execution())
            step.detail = accuracy_line(self.report.evaluation)
        self.package = self._registered_package()

    def _execution(self) -> str:
        """Return the ARN of the pipeline's new execution, which the upload's manifest starts through EventBridge."""
        sagemaker, pipeline = self.cloud.client("sagemaker"), self.output("Pipeline", "PipelineName")

        def started() -> Any:
            found = sagemaker.list_pipeline_executions(PipelineName=pipeline)["PipelineExecutionSummaries"]
            new = (one["PipelineExecutionArn"] for one in found if one["PipelineExecutionArn"] not in self._followed)
            return next(new, None)

        what = "The start of the pipeline by the upload's manifest"
        self._followed.append(str(wait_for(what, started, self.cloud.bus.undelivered)))
        return self._followed[-1]

    def _follow(self, execution: str) -> None:
        """Follow the run as `kennel train` does, and report what it left; raise KennelError with its failure."""
        epochs = int(self.options.hyperparameters["epochs"])
        follower = Follower(self.cloud.client, execution, self.display, epochs=epochs, poll_s=_POLL_S)
        try:
            ending = follower.run()
        finally:
            report = self.report
            report.epochs, report.trials = follower.epochs, follower.trials
            self.outputs = JobOutputs(self.cloud.client("s3"), self.cloud.client("sagemaker"), execution)
            report.prepare = json.loads(self.outputs.read("report", "prepare.json") or "{}")
            report.evaluation = json.loads(self.outputs.read("evaluation", "evaluation.json") or "{}")
            if page := self.outputs.read("evaluation", "report.html"):
                report.model_page = self.work / "model.html"
                report.model_page.write_bytes(page)
        if ending.status != "Succeeded":
            for line in ending.last_lines:
                self.display.log(line)
            raise KennelError(ending.sentence)

    def _registered_package(self) -> dict[str, Any]:
        """Return the description of the newest model package; raise KennelError where none was registered."""
        sagemaker, group = self.cloud.client("sagemaker"), self.output("Data", "ModelPackageGroupName")
        newest = sagemaker.list_model_packages(
            ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending", MaxResults=1
        )["ModelPackageSummaryList"]
        if not newest:
            raise KennelError(f"The pipeline registered no model in {group}.")
        about: dict[str, Any] = sagemaker.describe_model_package(ModelPackageName=newest[0]["ModelPackageArn"])
        return about

    def release(self) -> None:
        """Approve the model where the stage leaves that to an operator, and wait until it is served."""
        package, by_hand = self.package["ModelPackageArn"], self.package["ModelApprovalStatus"] != "Approved"
        with self.display.step("Release the model") as step:
            if by_hand:
                give_approval(self.cloud.client, package, "Approved by the rehearsal.")
            endpoint = self.output("Hosting", "EndpointName")
            wait_until_served(self.cloud, stack=self.deployed.name("Hosting"), endpoint=endpoint, package=package)
            wait_for("The observe function's record of it", self._is_recorded, self.cloud.bus.undelivered)
            step.detail = f"approved by {'the rehearsal' if by_hand else 'the stage'}, recorded as live"
            self.report.coverage = coverage_of(self.assembly, self.options.stage)
        self._say_what_is_not_enacted()

    def _is_recorded(self) -> bool:
        entries = read_entries(self.cloud.client("s3"), self.output("Data", "DataBucketName"))
        version = int(self.package["ModelPackageArn"].rpartition("/")[2])
        return any((entry.version, entry.state) == (version, "live") for entry in entries)

    def classify(self) -> None:
        with self.display.step("Invoke the Lambda") as step:
            bucket, data = self.outputs.place("data")
            folder = self.work / "pictures"
            shown = held_out_pictures(self.cloud.client("s3"), bucket, f"{data}/test", folder, _PICTURES)
            shown += given_pictures(self.options.photos, foreign=self.options.none)
            shown += self._held_out
            self.report.predictions.clear()  # of a model before
            for number, picture in enumerate(shown):
                # One of them lies in the bucket: a caller may name a photo there instead of sending it.
                place = str(picture.path) if number else self._in_bucket(picture)
                self.report.predictions.append(self._classified(picture, place))
                self.display.advance((number + 1) / len(shown))
            judged = verdicts(self.report.predictions)
            said = ", ".join(f"{judged[verdict]} {words}" for verdict, words in _VERDICTS.items() if judged[verdict])
            known = f"; {found}" if (found := refused(self.report.predictions)) else ""
            step.detail = f"{len(shown)} pictures; of {judged.total()} of the test split {said}{known}"
        for one in self.report.predictions:
            if not one.foreign or one.verdict != "right":
                self.display.log(f"  {_line(one)}")
        require_answers(self.report.predictions)

    def _in_bucket(self, picture: Picture) -> str:
        bucket, key = self.output("Data", "DataBucketName"), f"photos/{picture.path.name}"
        self.cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=sendable(picture.path))
        return f"s3://{bucket}/{key}"

    def _classified(self, picture: Picture, place: str) -> Prediction:
        made = partial(Prediction, picture.name, truth=picture.truth, foreign=picture.foreign)
        body = b""
        try:
            event = payload(place)
            body = picture.path.read_bytes()
            answer = classify(self.cloud.client("lambda"), self.output("Classify", "FunctionAliasArn"), event)
        except KennelError as error:
            if isinstance(error, Refused) or picture.truth is None:
                return made("", 0.0, image=body, error=str(error))
            raise
        top = answer["predictions"]
        best = top[0]["label"], top[0]["probability"]
        return made(*best, top=top, image=body, answer=verdict_of(answer))

    def output(self, stack: str, name: str) -> str:
        """Return an output of the stage's stack, such as Data."""
        return self.deployed.of(stack)[name]

    def _say_what_is_not_enacted(self) -> None:
        others = Counter((row.status, row.type) for row in self.report.coverage if row.status != "enacted")
        all_ = len(self.report.coverage)
        enacted = all_ - others.total()
        self.display.log(f"Enacted: {enacted} of {all_} resources. The others, explained in the report:")
        for status in sorted({status for status, _ in others}):
            listed = ", ".join(f"{others[one]} {one[1]}" for one in sorted(others) if one[0] == status)
            self.display.log(f"  {status}: {listed}")


def require_answers(predictions: Sequence[Prediction]) -> None:
    """Raise KennelError if a picture of the test split had no answer: what was learned from must be served too."""
    held_out = [one for one in predictions if one.truth is not None]
    if unanswered := [one for one in held_out if one.error]:
        first = unanswered[0]
        raise KennelError(
            f"{len(unanswered)} of {len(held_out)} pictures of the test split had no answer from the Lambda; "
            f"{first.file}: {first.error}"
        )


def _line(one: Prediction) -> str:
    if one.error:
        return f"{one.file}: {one.error}"
    none = {"none_of_these": "none of these, at best ", "not_sure": "not sure, at best "}.get(one.answer, "")
    truth = one.truth or "none of these"
    judged = {"right": " ✓", "wrong": f" ✗ it is {truth}", "": ""}.get(one.verdict, f"; it is {truth}")
    runners_up = ", ".join(f"{guess['label']} {guess['probability']:.1%}" for guess in one.top[1:3])
    return f"{one.file}: {none}{one.label} {one.probability:.1%}{judged}  ({runners_up})"


class JobOutputs:
    """The files that the processing jobs of a run have left in the bucket; a run that failed may have left none."""

    def __init__(self, s3: Any, sagemaker: Any, execution: str) -> None:
        self._s3 = s3
        self._addresses: dict[str, str] = {}  # name of an output (data, report, evaluation ...): s3:// address
        for step in steps_of(sagemaker, execution):
            if step.kind == "ProcessingJob":
                with suppress(ClientError):  # the step failed before the job was made
                    about = sagemaker.describe_processing_job(ProcessingJobName=step.job)
                    for one in about.get("ProcessingOutputConfig", {}).get("Outputs", []):
                        self._addresses[one["OutputName"]] = one["S3Output"]["S3Uri"].rstrip("/")

    def place(self, output: str) -> tuple[str, str]:
        bucket, prefix = self._addresses[output].removeprefix("s3://").split("/", 1)
        return bucket, prefix

    def read(self, output: str, name: str) -> bytes | None:
        """Return the file `name` of an output; None where the output or the file was never made."""
        if output not in self._addresses:
            return None
        bucket, prefix = self.place(output)
        try:
            body: bytes = self._s3.get_object(Bucket=bucket, Key=f"{prefix}/{name}")["Body"].read()
        except self._s3.exceptions.NoSuchKey:
            return None
        return body


def wait_for(what: str, ready: Callable[[], Any], undelivered: Sequence[str], *, seconds: float = _RELEASE_S) -> Any:
    """Call `ready` until it returns something true, and return that.

    Raise KennelError after `seconds`, and with the reason as soon as a rule's target has refused an event
    (`undelivered`): then nothing will come of it.
    """
    deadline = time.monotonic() + seconds
    while not (answer := ready()):
        if undelivered:
            raise KennelError(f"{what} did not happen: {undelivered[0]}")
        if time.monotonic() > deadline:
            raise KennelError(f"{what} did not happen within {seconds:.0f} s.")
        time.sleep(0.1)
    return answer


def wait_until_served(cloud: Cloud, *, stack: str, endpoint: str, package: str) -> None:
    """Wait until the promote Lambda's stack update has ended and the endpoint serves `package`.

    Raise KennelError with CloudFormation's or SageMaker's reason when it ends otherwise.
    """
    cloudformation = cloud.client("cloudformation")

    def ended() -> Any:
        about = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        parameters = {one["ParameterKey"]: one["ParameterValue"] for one in about.get("Parameters", [])}
        status = about["StackStatus"]
        if "ROLLBACK" in status or "FAILED" in status:
            raise KennelError(f"The release failed, {stack} is {status}: {about.get('StackStatusReason', 'no reason')}")
        return parameters.get("ModelPackageArn") == package and status.endswith("_COMPLETE")

    try:
        wait_for("The release by the promote Lambda", ended, cloud.bus.undelivered)
    except KennelError as error:
        raise KennelError(f"{error} {cloud.event_sources.failure}".strip()) from error
    about = cloud.client("sagemaker").describe_endpoint(EndpointName=endpoint)
    if (status := about["EndpointStatus"]) != "InService":
        raise KennelError(f"Endpoint {endpoint} is {status}: {about.get('FailureReason', 'no reason')}")
