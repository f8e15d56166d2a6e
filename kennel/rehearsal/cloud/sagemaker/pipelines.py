"""Pipelines, their executions and the jobs of their steps; the data plane runs them and the API shows each step."""

import json
import logging
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call, Handler, json_answer
from kennel.rehearsal.cloud.events import Publish
from kennel.rehearsal.cloud.sagemaker.resources import Record, ResourceStore, page
from kennel.rehearsal.interfaces import DataPlane, PipelineExecution

_JOB_STATUS = {"Succeeded": "Completed", "Failed": "Failed", "Stopped": "Stopped"}
_log = logging.getLogger(__name__)


class Pipelines(ResourceStore):
    """All pipelines; a definition without Version or Steps is refused."""

    def __init__(self) -> None:
        missing = "Pipeline '{arn}' does not exist."
        super().__init__("Pipeline", "pipeline", {"PipelineStatus": "Active"}, missing, "ResourceNotFound")

    def add(self, parameters: Record) -> Record:
        definition = json.loads(parameters["PipelineDefinition"])
        if "Version" not in definition or not definition.get("Steps"):
            raise ApiError("ValidationException", "A pipeline definition has a Version and at least one of Steps.")
        return super().add({key: value for key, value in parameters.items() if key != "ClientRequestToken"})


class Executions:
    """All executions of pipelines, each run by the data plane in a thread of its own."""

    def __init__(self, pipelines: Pipelines, data_plane: DataPlane, publish: Publish) -> None:
        self._pipelines, self._data_plane, self._publish = pipelines, data_plane, publish
        self._records: dict[str, tuple[PipelineExecution, Record]] = {}

    def handlers(self) -> dict[str, Handler]:
        return {
            "StartPipelineExecution": self.start,
            "StopPipelineExecution": self.stop,
            "DescribePipelineExecution": self.describe,
            "ListPipelineExecutions": self.listing,
            "ListPipelineExecutionSteps": self.steps,
            "ListPipelineParametersForExecution": self.parameters,
        }

    def start(self, call: Call) -> Response:
        """Answer StartPipelineExecution; raise ApiError for parameters that the definition does not take."""
        given = call.parameters
        pipeline = self._pipelines.get(given["PipelineName"])
        definition = json.loads(pipeline["PipelineDefinition"])
        parameters = _parameters(definition, given.get("PipelineParameters", []))
        arn = f"{pipeline['PipelineArn']}/execution/{uuid.uuid4().hex[:12]}"
        execution = PipelineExecution(arn, pipeline["PipelineName"], pipeline["RoleArn"], definition, parameters)
        now = datetime.now(UTC)
        about = {key: value for key, value in given.items() if key.startswith("PipelineExecution")}
        about |= {"PipelineArn": pipeline["PipelineArn"], "PipelineExecutionArn": arn, "StartTime": now}
        self._records[arn] = (execution, {**about, "CreationTime": now, "LastModifiedTime": now})
        threading.Thread(target=self._run, args=(execution,), daemon=True).start()
        return json_answer({"PipelineExecutionArn": arn})

    def describe(self, call: Call) -> Response:
        return json_answer(self._description(call.parameters["PipelineExecutionArn"]))

    def listing(self, call: Call) -> Response:
        name = self._pipelines.get(call.parameters["PipelineName"])["PipelineName"]
        return page(
            call, [self._description(arn) for arn, (run, _) in self._records.items() if run.pipeline_name == name]
        )

    def steps(self, call: Call) -> Response:
        return page(call, list(self._get(call.parameters["PipelineExecutionArn"])[0].steps))

    def parameters(self, call: Call) -> Response:
        values = self._get(call.parameters["PipelineExecutionArn"])[0].parameters
        return json_answer({"PipelineParameters": [{"Name": name, "Value": values[name]} for name in values]})

    def stop(self, call: Call) -> Response:
        """Answer StopPipelineExecution: the data plane sees the status, ends what runs and begins no further step."""
        execution = self._get(call.parameters["PipelineExecutionArn"])[0]
        if execution.status != "Executing":
            raise ApiError("ConflictException", f"Pipeline execution {execution.arn} is {execution.status}.")
        execution.status = "Stopping"
        return json_answer({"PipelineExecutionArn": execution.arn})

    def step_of(self, arn: str) -> Record:
        """Return the step whose metadata names the job `arn` (in lower case), or nothing."""
        for execution, _ in list(self._records.values()):
            for step in list(execution.steps):
                if any(about.get("Arn", "").lower() == arn for about in step.get("Metadata", {}).values()):
                    return step
        return {}

    def facts_of(self, arn: str) -> Record:
        """Return what the data plane has reported of the job `arn`: times, final metrics, trials."""
        reported = (execution.jobs.get(arn.lower()) for execution, _ in list(self._records.values()))
        return next((dict(facts) for facts in reported if facts), {})

    def _run(self, execution: PipelineExecution) -> None:
        ended = "Succeeded"
        try:
            self._data_plane.run_pipeline(execution)
        except Exception as error:
            _log.info("pipeline %s failed", execution.pipeline_name, exc_info=True)
            ended = "Failed"
            if execution.status != "Stopping":
                execution.failure_reason = str(error)
        execution.status = "Stopped" if execution.status == "Stopping" else ended
        self._records[execution.arn][1]["LastModifiedTime"] = datetime.now(UTC)
        self._tell(execution)

    def _tell(self, execution: PipelineExecution) -> None:
        pipeline = self._records[execution.arn][1]["PipelineArn"]
        detail = {
            "pipelineArn": pipeline,
            "pipelineExecutionArn": execution.arn,
            "currentPipelineExecutionStatus": execution.status,
            "previousPipelineExecutionStatus": "Executing",
        }
        kind = "SageMaker Model Building Pipeline Execution Status Change"
        self._publish("aws.sagemaker", kind, detail, [pipeline, execution.arn])

    def _get(self, arn: str) -> tuple[PipelineExecution, Record]:
        if arn not in self._records:
            raise ApiError("ResourceNotFound", f"Pipeline execution with ARN {arn} does not exist.")
        return self._records[arn]

    def _description(self, arn: str) -> Record:
        execution, about = self._get(arn)
        names = ("FailureReason", "PipelineExecutionFailureReason")  # of Describe and of List
        reasons = dict.fromkeys(names, execution.failure_reason) if execution.failure_reason else {}
        return {**about, "PipelineExecutionStatus": execution.status, **reasons}


class Jobs(ResourceStore):
    """All jobs of one kind; Describe returns the status of the pipeline step that began the job."""

    def __init__(self, noun: str, path: str, executions: Executions) -> None:
        super().__init__(noun, path)
        self._executions = executions

    def add(self, parameters: Record) -> Record:
        _check_spot(parameters.get("TrainingJobDefinition", parameters))
        return super().add(parameters)

    def describe(self, call: Call) -> Response:
        record = self.get(self.name_in(call))
        step = self._executions.step_of(record[f"{self.noun}Arn"])
        reason = {"FailureReason": step["FailureReason"]} if "FailureReason" in step else {}
        status = _JOB_STATUS.get(step.get("StepStatus", ""), "InProgress")
        facts = self._executions.facts_of(record[f"{self.noun}Arn"])
        return json_answer({**record, **facts, f"{self.noun}Status": status, **reason})

    def trials(self, call: Call) -> Response:
        facts = self._executions.facts_of(self.get(self.name_in(call))[f"{self.noun}Arn"])
        return page(call, list(facts.get("TrainingJobSummaries", [])))


def _check_spot(request: Record) -> None:
    """Raise ApiError where a request breaks CreateTrainingJob's rule on MaxWaitTimeInSeconds."""
    condition = request.get("StoppingCondition", {})
    wait = condition.get("MaxWaitTimeInSeconds")
    if request.get("EnableManagedSpotTraining"):
        if wait is None or wait < condition.get("MaxRuntimeInSeconds", 86_400):
            raise ApiError(
                "ValidationException",
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds",
            )
    elif wait is not None:
        raise ApiError(
            "ValidationException", "MaxWaitTimeInSeconds above 0 is not allowed if EnableManagedSpotTraining is false"
        )


def _parameters(definition: Mapping[str, Any], given: list[dict[str, str]]) -> dict[str, str]:
    """Return the definition's defaults, overlaid by those given; raise ApiError for an unknown or a missing one."""
    declared = {one["Name"]: one.get("DefaultValue") for one in definition.get("Parameters", [])}
    values = {**declared, **{one["Name"]: one["Value"] for one in given}}
    if unknown := sorted(set(values) - set(declared)):
        raise ApiError("ValidationException", f"Pipeline parameters {unknown} are not declared in the definition.")
    if missing := sorted(name for name, value in values.items() if value is None):
        raise ApiError("ValidationException", f"Pipeline parameters {missing} have no default and no value.")
    return {name: str(value) for name, value in values.items()}
