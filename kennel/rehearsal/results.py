"""What the pipeline's processing jobs have left in the bucket, found by way of the execution's own steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from kennel.rehearsal.record import Record


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
        """Bucket and prefix of an output."""
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
