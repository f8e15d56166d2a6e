"""Pipelines and their executions, which a data plane runs for real while the API shows each step."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kennel.rehearsal.cloud.request import Call
from kennel.rehearsal.cloud.response import Answer, ApiError, json_answer
from kennel.rehearsal.cloud.sagemaker.resources import Kind, Record, page
from kennel.rehearsal.interfaces import DataPlane, PipelineExecution

_log = logging.getLogger(__name__)


class Pipelines(Kind):
    def __init__(self) -> None:
        missing = "Pipeline '{arn}' does not exist."
        super().__init__("Pipeline", "pipeline", {"PipelineStatus": "Active"}, missing, "ResourceNotFound")

    def add(self, parameters: Record) -> Record:
        definition = json.loads(parameters["PipelineDefinition"])
        if "Version" not in definition or not definition.get("Steps"):
            raise ApiError("ValidationException", "A pipeline definition has a Version and at least one of Steps.")
        return super().add({key: value for key, value in parameters.items() if key != "ClientRequestToken"})


class Executions:
    def __init__(self, pipelines: Pipelines, data_plane: DataPlane) -> None:
        self.pipelines, self.data_plane = pipelines, data_plane
        self.held: dict[str, tuple[PipelineExecution, Record]] = {}

    def start(self, call: Call) -> Answer:
        asked = call.parameters
        pipeline = self.pipelines.get(asked["PipelineName"])
        definition = json.loads(pipeline["PipelineDefinition"])
        parameters = _parameters(definition, asked.get("PipelineParameters", []))
        arn = f"{pipeline['PipelineArn']}/execution/{uuid.uuid4().hex[:12]}"
        execution = PipelineExecution(arn, pipeline["PipelineName"], pipeline["RoleArn"], definition, parameters)
        now = datetime.now(UTC)
        about = {key: value for key, value in asked.items() if key.startswith("PipelineExecution")}
        about |= {"PipelineArn": pipeline["PipelineArn"], "PipelineExecutionArn": arn, "StartTime": now}
        self.held[arn] = (execution, {**about, "CreationTime": now, "LastModifiedTime": now})
        threading.Thread(target=self._run, args=(execution,), daemon=True).start()
        return json_answer({"PipelineExecutionArn": arn})

    def describe(self, call: Call) -> Answer:
        return json_answer(self._shown(call.parameters["PipelineExecutionArn"]))

    def listing(self, call: Call) -> Answer:
        name = self.pipelines.get(call.parameters["PipelineName"])["PipelineName"]
        return page(call, [self._shown(arn) for arn, (run, _) in self.held.items() if run.pipeline_name == name])

    def steps(self, call: Call) -> Answer:
        steps = list(self._get(call.parameters["PipelineExecutionArn"])[0].steps)
        return page(call, steps)

    def parameters(self, call: Call) -> Answer:
        held = self._get(call.parameters["PipelineExecutionArn"])[0].parameters
        return json_answer({"PipelineParameters": [{"Name": name, "Value": held[name]} for name in held]})

    def definition(self, call: Call) -> Answer:
        execution, about = self._get(call.parameters["PipelineExecutionArn"])
        return json_answer(
            {"PipelineDefinition": json.dumps(execution.definition), "CreationTime": about["CreationTime"]}
        )

    def stop(self, call: Call) -> Answer:
        """The data plane looks at `status`: what runs gets SIGTERM, and no further step begins."""
        execution = self._get(call.parameters["PipelineExecutionArn"])[0]
        if execution.status != "Executing":
            raise ApiError("ConflictException", f"Pipeline execution {execution.arn} is {execution.status}.")
        execution.status = "Stopping"
        return json_answer({"PipelineExecutionArn": execution.arn})

    def step_of(self, arn: str) -> Record:
        """The step whose metadata names the job `arn` (in small letters), or nothing."""
        for execution, _ in list(self.held.values()):
            for step in list(execution.steps):
                if any(about.get("Arn", "").lower() == arn for about in step.get("Metadata", {}).values()):
                    return step
        return {}

    def facts_of(self, arn: str) -> Record:
        """What the data plane has told of the job `arn`: times, final metrics, trials."""
        told = (execution.jobs.get(arn.lower()) for execution, _ in list(self.held.values()))
        return next((dict(facts) for facts in told if facts), {})

    def _run(self, execution: PipelineExecution) -> None:
        try:
            self.data_plane.run_pipeline(execution)
        except Exception as error:
            _log.info("pipeline %s failed", execution.pipeline_name, exc_info=True)
            execution.failure_reason = execution.failure_reason or str(error)
            execution.status = "Stopped" if execution.status == "Stopping" else "Failed"
        else:
            ends = {"Executing": "Succeeded", "Stopping": "Stopped"}
            execution.status = ends.get(execution.status, execution.status)
        self.held[execution.arn][1]["LastModifiedTime"] = datetime.now(UTC)

    def _get(self, arn: str) -> tuple[PipelineExecution, Record]:
        if arn not in self.held:
            raise ApiError("ResourceNotFound", f"Pipeline execution with ARN {arn} does not exist.")
        return self.held[arn]

    def _shown(self, arn: str) -> Record:
        execution, about = self._get(arn)
        reason = {"FailureReason": execution.failure_reason} if execution.failure_reason else {}
        if reason:
            reason["PipelineExecutionFailureReason"] = execution.failure_reason
        return {**about, "PipelineExecutionStatus": execution.status, **reason}


def _parameters(definition: Mapping[str, Any], given: list[dict[str, str]]) -> dict[str, str]:
    """The definition's defaults, overlaid by what was given; raises ApiError for an unknown or a missing one."""
    declared = {one["Name"]: one.get("DefaultValue") for one in definition.get("Parameters", [])}
    values = {**declared, **{one["Name"]: one["Value"] for one in given}}
    if unknown := sorted(set(values) - set(declared)):
        raise ApiError("ValidationException", f"Pipeline parameters {unknown} are not declared in the definition.")
    if missing := sorted(name for name, value in values.items() if value is None):
        raise ApiError("ValidationException", f"Pipeline parameters {missing} have no default and no value.")
    return {name: str(value) for name, value in values.items()}
