"""The records of past runs: evaluation.json in the bucket, SageMaker's jobs, and the runs of this machine."""

import json
import math
import re
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kennel.aws import Client, aws_errors, output
from kennel.errors import KennelError
from kennel.pipeline_steps import Usage, steps_of, usages
from kennel.prices import Prices, total
from kennel.train.launch import choose_manifest

_Z = statistics.NormalDist().inv_cdf(0.975)  # of a 95 % interval
_WORST = 3  # classes shown
_NEWEST = 30  # runs looked at; each costs a handful of calls
Evaluation = Mapping[str, Any]
_BROKEN = (KeyError, TypeError, ValueError, AttributeError)  # what a record of another shape raises


@dataclass(frozen=True, kw_only=True)
class Run:
    """`seconds` of all steps together; `billable_seconds` summed over instances; `cost` in dollars, None: unknown.

    `instance_type` is empty on the operator's own machine. `accuracy`, `low` and `high` are fractions.
    """

    run: str
    launcher: str  # SageMaker, SageMaker spot, EC2 or local
    instance_type: str
    instances: int
    started: str  # ISO 8601, UTC
    images: int
    epochs: int
    mode: str
    seconds: float
    billable_seconds: float
    cost: float | None
    accuracy: float
    low: float
    high: float
    worst: tuple[tuple[str, float], ...]  # class and recall, the worst first
    fingerprint: str

    @property
    def place(self) -> str:
        """`2 x ml.m5.xlarge`, or `this machine`."""
        on = self.instance_type or ("this machine" if self.launcher == "local" else "unknown type")
        return f"{self.instances} x {on}" if self.instance_type or self.instances > 1 else on


@dataclass
class Found:
    """`unread` names records that could not be read; `without_aws` says why the cloud's are missing, or is empty."""

    runs: list[Run] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    without_aws: str = ""
    region: str = ""  # of AWS, where it could be read
    newest_images: int = 0  # of the newest data set, 0: unknown

    @contextmanager
    def reading(self, where: str) -> Iterator[None]:
        """Name `where` as unread when the record read inside the block is missing or broken."""
        try:
            yield
        except (*_BROKEN, KennelError):
            self.unread.append(where)


def read_evaluation(file: Path) -> Evaluation:
    """Return evaluation.json; raise KennelError where it is missing or broken."""
    try:
        content: Evaluation = json.loads(file.read_text(encoding="utf-8"))
        return content
    except (OSError, ValueError) as error:
        raise KennelError(f"{file} cannot be read ({error}).") from error


def evaluation_fields(evaluation: Evaluation) -> dict[str, Any]:
    """Return the fields of Run that evaluation.json knows; raise KeyError, TypeError or ValueError for a broken one."""
    model, count = evaluation["model"], int(evaluation["test_samples"])
    settings, data = model.get("hyperparameters") or {}, model.get("data") or {}
    accuracy = float(evaluation["metrics"]["accuracy"]["value"])
    low, high = interval(accuracy, count)
    recalls = sorted((float(one["recall"]), str(one["class"])) for one in evaluation["per_class"] if one["support"])
    return {
        "images": int(data.get("train_images") or 0) + int(data.get("valid_images") or 0) + count,
        "epochs": int(settings.get("epochs") or 0),
        "mode": str(settings.get("mode") or "unknown"),
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "worst": tuple((name, recall) for recall, name in recalls[:_WORST]),
        "fingerprint": str(data.get("fingerprint") or ""),
    }


def accuracy_line(evaluation: Evaluation) -> str:
    """Return the test accuracy with its interval in a few words."""
    accuracy, count = evaluation["metrics"]["accuracy"]["value"], evaluation["test_samples"]
    low, high = interval(accuracy, count)
    return f"accuracy {accuracy:.1%} on {count:,} test images (95 % interval {low:.1%} to {high:.1%})"


def trained_on(evaluation: Evaluation) -> tuple[str, int, float]:
    """Return instance type, instances and seconds of the training itself, as the model remembers them."""
    about = evaluation["model"].get("trained_on") or {}
    return str(about.get("instance_type") or ""), int(about.get("instances") or 1), float(about.get("seconds") or 0)


def interval(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share seen on `count` images (Wilson 1927)."""
    if count <= 0:
        return 0.0, 1.0
    z2 = _Z**2
    middle, half = share + z2 / (2 * count), _Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, (middle - half) / (1 + z2 / count)), min(1.0, (middle + half) / (1 + z2 / count))


def gather(client: Client, stage: str, runs: Path, prices: Prices) -> Found:
    """Return all runs with a record, newest first; where AWS cannot be read, those of this machine."""
    found = Found()
    local_runs(runs, found)
    try:
        bucket = output(stage, "Data", "DataBucketName")
        aws_runs(client, bucket, output(stage, "Pipeline", "PipelineName"), prices, found)
    except KennelError as error:
        found.without_aws = str(error)
    else:
        with suppress(KennelError):  # nothing was uploaded yet
            found.newest_images = images_of(client("s3"), bucket, choose_manifest(client("s3"), bucket, ""))
    found.runs.sort(key=lambda run: run.started, reverse=True)
    return found


def local_runs(folder: Path, found: Found) -> None:
    """Runs that were finished below `folder`."""
    for file in sorted(folder.glob("*/evaluation/evaluation.json")):
        place = file.parent.parent
        with found.reading(str(file)):
            found.runs.append(_local(place, read_evaluation(file)))


def _local(place: Path, evaluation: Evaluation) -> Run:
    record = json.loads((place / "run.json").read_text(encoding="utf-8"))
    return Run(
        run=place.name,
        launcher="local",
        instance_type="",
        instances=int(record["instances"]),
        started=str(record["started"]),
        seconds=sum(record["seconds"].values()),
        billable_seconds=0.0,
        cost=0.0,
        **evaluation_fields(evaluation),
    )


def aws_runs(client: Client, bucket: str, pipeline: str, prices: Prices, found: Found, newest: int = _NEWEST) -> None:
    """Add the newest runs of the pipeline and of the EC2 launcher to `found`; raise KennelError where AWS refuses."""
    found.region = str(client("s3").meta.region_name)
    with aws_errors():
        cloud = _Cloud(client, bucket, pipeline, prices)
        for written, key in cloud.evaluations(newest):
            with found.reading(f"s3://{bucket}/{key}"):
                found.runs.append(cloud.run(written, key))


class _Cloud:
    def __init__(self, client: Client, bucket: str, pipeline: str, prices: Prices) -> None:
        self._s3, self._sagemaker = client("s3"), client("sagemaker")
        self._bucket, self._prefix, self._prices = bucket, f"runs/{pipeline}/", prices
        pages = self._sagemaker.get_paginator("list_pipeline_executions").paginate(PipelineName=pipeline)
        arns = pages.search("PipelineExecutionSummaries[].PipelineExecutionArn")
        self._executions = {arn.rpartition("/")[2]: arn for arn in arns}
        self._written: dict[str, datetime] = {}

    def evaluations(self, newest: int) -> list[tuple[datetime, str]]:
        """Return (time, key) of the newest evaluation.json files, newest first."""
        for kind in ("evaluate/", "ec2/"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + kind)
            for page in pages:
                self._written |= {one["Key"]: one["LastModified"] for one in page.get("Contents", [])}
        pattern = rf"{re.escape(self._prefix)}(evaluate/[^/]+|ec2/[^/]+/evaluation)/evaluation\.json"
        keys = [(when, key) for key, when in self._written.items() if re.fullmatch(pattern, key)]
        return sorted(keys, reverse=True)[:newest]

    def run(self, written: datetime, key: str) -> Run:
        evaluation = json.loads(self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read())
        kind, run = key.removeprefix(self._prefix).split("/")[:2]
        return self._ec2(run, written, evaluation) if kind == "ec2" else self._pipeline(run, written, evaluation)

    def _pipeline(self, run: str, written: datetime, evaluation: Evaluation) -> Run:
        steps = steps_of(self._sagemaker, self._executions[run]) if run in self._executions else []
        learning = next((step for step in steps if step.name.startswith(("Train", "Tune"))), None)
        used = [(step, usage) for step in steps for usage in usages(self._sagemaker, step)]
        kind, instances, seconds = trained_on(evaluation)
        own = [usage for step, usage in used if step is learning] or [Usage(kind, instances, seconds)]
        all_ = [usage for _, usage in used] or own
        return Run(
            run=run,
            launcher="SageMaker spot" if learning and learning.name.endswith("Spot") else "SageMaker",
            instance_type=own[0].instance_type,
            instances=own[0].instances,
            started=_iso(written),
            seconds=sum(step.seconds for step in steps) or seconds,
            billable_seconds=sum(usage.seconds * usage.instances for usage in all_),
            cost=total(usage.cost(self._prices) for usage in all_),
            **evaluation_fields(evaluation),
        )

    def _ec2(self, run: str, written: datetime, evaluation: Evaluation) -> Run:
        """The run's name begins with the time it began; its log is written last."""
        kind, instances, seconds = trained_on(evaluation)
        end = self._written.get(f"{self._prefix}ec2/{run}/run.log", written)
        if began := re.match(r"\d{8}T\d{6}Z", run):
            start = datetime.strptime(began[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            seconds = max(seconds, (end - start).total_seconds())
        return Run(
            run=run,
            launcher="EC2",
            instance_type=kind,
            instances=instances,
            started=_iso(written),
            seconds=seconds,
            billable_seconds=seconds * instances,
            cost=self._prices.cost(kind, instances, seconds),
            **evaluation_fields(evaluation),
        )


def images_of(s3: Any, bucket: str, manifest: str) -> int:
    """Return how many images an uploaded data set has, or 0 where that cannot be read."""
    key = f"{manifest.removesuffix('.manifest')}/dataset.json"
    try:
        with aws_errors():
            return int(json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())["images"])
    except (*_BROKEN, KennelError):
        return 0


def _iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="seconds")
