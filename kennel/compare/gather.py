"""Finds the records of past runs: in the data bucket, and in the folder of runs on this machine."""

import json
from pathlib import Path
from typing import Any

from kennel.aws import output
from kennel.compare.cloud import Client, aws_runs, images_of
from kennel.compare.records import Evaluation, Found, Run, learned, read_evaluation
from kennel.errors import KennelError
from kennel.prices import Prices
from kennel.train.launch import choose_manifest


def gather(client: Client, stage: str, runs: Path, prices: Prices) -> Found:
    """Everything that left a record, newest first. What AWS refuses leaves this machine's runs."""
    found = Found()
    local_runs(runs, found)
    try:
        bucket = output(stage, "Data", "DataBucketName")
        aws_runs(client, bucket, output(stage, "Pipeline", "PipelineName"), prices, found)
        found.newest_images = _newest_images(client("s3"), bucket)
    except KennelError as error:
        found.without_aws = str(error)
    found.runs.sort(key=lambda run: run.started, reverse=True)
    return found


def local_runs(folder: Path, found: Found) -> None:
    """Runs that were finished below `folder`."""
    for file in sorted(folder.glob("*/evaluation/evaluation.json")):
        place = file.parent.parent
        found.add(str(file), lambda place=place, file=file: _local(place, read_evaluation(file)))  # type: ignore[misc]


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
        **learned(evaluation),
    )


def _newest_images(s3: Any, bucket: str) -> int:
    try:
        return images_of(s3, bucket, choose_manifest(s3, bucket, ""))
    except KennelError:
        return 0  # nothing was uploaded yet
