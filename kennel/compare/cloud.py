"""The records of past runs: evaluation.json in the bucket, SageMaker's jobs, and the runs of this machine."""

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kennel.aws import Client, aws_errors, output
from kennel.compare.records import BROKEN, Evaluation, Found, Run, evaluation_fields, read_evaluation, trained_on
from kennel.errors import KennelError
from kennel.pipeline_steps import Usage, steps_of, usages
from kennel.prices import Prices, total
from kennel.train.launch import choose_manifest


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


_NEWEST = 30  # runs looked at; each costs a handful of calls


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
    except (*BROKEN, KennelError):
        return 0


def _iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="seconds")
