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
        record.model_page = next(iter(self._fetch("evaluation", "report.html", folder)), None)
        record.figures = self._fetch("evaluation", "figures/", folder)

    def place(self, output: str) -> tuple[str, str]:
        """Bucket and prefix of an output."""
        bucket, prefix = self.outputs[output].removeprefix("s3://").split("/", 1)
        return bucket, prefix

    def _json(self, output: str, name: str) -> dict[str, Any]:
        if output not in self.outputs:
            return {}
        bucket, prefix = self.place(output)
        try:
            body = self._s3.get_object(Bucket=bucket, Key=f"{prefix}/{name}")["Body"].read()
        except self._s3.exceptions.NoSuchKey:
            return {}
        read: dict[str, Any] = json.loads(body)
        return read

    def _fetch(self, output: str, name: str, folder: Path) -> list[Path]:
        """Download what begins with `name`; the files, by name."""
        if output not in self.outputs:
            return []
        bucket, prefix = self.place(output)
        listed = self._s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/{name}").get("Contents", [])
        files = []
        for key in [one["Key"] for one in listed]:
            files.append(folder / Path(key).name)
            self._s3.download_file(bucket, key, str(files[-1]))
        return files


def _outputs(sagemaker: Any, job: str) -> dict[str, str]:
    try:
        about = sagemaker.describe_processing_job(ProcessingJobName=job)
    except ClientError:  # the step failed before the job was made
        return {}
    outputs = about.get("ProcessingOutputConfig", {}).get("Outputs", [])
    return {one["OutputName"]: one["S3Output"]["S3Uri"].rstrip("/") for one in outputs}
