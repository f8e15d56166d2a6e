"""The record of a rehearsal, from which its report is written, and the results that the jobs left in the bucket."""

import json
import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from kennel.console import Display
from kennel.rehearsal.options import Options
from kennel.rehearsal.report import CoverageRow, Prediction, RehearsalReport, write


@dataclass
class Record:
    """What a rehearsal has found out so far; it is written after a failure too."""

    options: Options
    display: Display
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    epochs: list[dict[str, Any]] = field(default_factory=list)
    trials: list[dict[str, Any]] = field(default_factory=list)
    prepare: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    model_page: Path | None = None
    predictions: list[Prediction] = field(default_factory=list)
    coverage: list[CoverageRow] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    overrides: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    failure: str = ""

    def write(self) -> Path:
        """Write rehearsal.json and report.html into `--out`; return the latter's path."""
        return write(self._report(), self.options.out)

    def accuracy(self) -> str:
        """Say how good the model is in a few words; empty where nothing was measured."""
        report = self._report()
        if report.test_accuracy is None or report.test_interval is None:
            return ""
        low, high = report.test_interval
        images = self.evaluation["test_samples"]
        return f"accuracy {report.test_accuracy:.1%} on {images:,} test images (95 % interval {low:.1%} to {high:.1%})"

    def _report(self) -> RehearsalReport:
        return RehearsalReport(
            stage=self.options.stage,
            started=self.started,
            data=str(self.options.data or "handwritten digits (scikit-learn)"),
            machine={"system": platform.platform(), "cores": str(os.cpu_count()), "python": platform.python_version()},
            steps=self.display.steps,
            metrics=self._metrics(),
            epochs=self.epochs,
            trials=self.trials,
            prepare=self.prepare,
            evaluation=self.evaluation,
            model_page=self.model_page,
            predictions=self.predictions,
            coverage=self.coverage,
            denied=self.denied,
            overrides=self.overrides,
            environment=self.environment,
            failure=self.failure,
        )

    def _metrics(self) -> dict[str, float]:
        measured = self.evaluation.get("metrics", {})
        return {name: one["value"] for name, one in measured.items() if one.get("value") is not None}


class Results:
    """`outputs`: name of a processing output (data, report, evaluation ...) -> its s3:// address, where it was made."""

    def __init__(self, s3: Any, sagemaker: Any, execution: str) -> None:
        self._s3 = s3
        self.outputs: dict[str, str] = {}
        steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution)["PipelineExecutionSteps"]
        for step in steps:
            if arn := step.get("Metadata", {}).get("ProcessingJob", {}).get("Arn"):
                self.outputs |= _outputs(sagemaker, arn.rpartition("/")[2])

    def fill(self, record: Record, folder: Path) -> None:
        """Fetch into `folder` what the report shows; of a pipeline that failed there may be little."""
        record.prepare = self._json("report", "prepare.json")
        record.evaluation = self._json("evaluation", "evaluation.json")
        record.model_page = self._fetch("evaluation", "report.html", folder)

    def place(self, output: str) -> tuple[str, str]:
        """Return bucket and prefix of an output."""
        bucket, prefix = self.outputs[output].removeprefix("s3://").split("/", 1)
        return bucket, prefix

    def _json(self, output: str, name: str) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self._read(output, name) or "{}")
        return read

    def _fetch(self, output: str, name: str, folder: Path) -> Path | None:
        """Download one file; None where the output or the file was never made."""
        body = self._read(output, name)
        if body is None:
            return None
        (folder / name).write_bytes(body)
        return folder / name

    def _read(self, output: str, name: str) -> bytes | None:
        if output not in self.outputs:
            return None
        bucket, prefix = self.place(output)
        try:
            body: bytes = self._s3.get_object(Bucket=bucket, Key=f"{prefix}/{name}")["Body"].read()
        except self._s3.exceptions.NoSuchKey:
            return None
        return body


def _outputs(sagemaker: Any, job: str) -> dict[str, str]:
    try:
        about = sagemaker.describe_processing_job(ProcessingJobName=job)
    except ClientError:  # the step failed before the job was made
        return {}
    outputs = about.get("ProcessingOutputConfig", {}).get("Outputs", [])
    return {one["OutputName"]: one["S3Output"]["S3Uri"].rstrip("/") for one in outputs}
