"""Training, processing and tuning jobs: requests that are checked and held; a data plane runs what they ask for."""

from __future__ import annotations

from kennel.rehearsal.cloud.request import Call
from kennel.rehearsal.cloud.response import Answer, ApiError, json_answer
from kennel.rehearsal.cloud.sagemaker.pipelines import Executions
from kennel.rehearsal.cloud.sagemaker.resources import Kind, Record, page

_STATUS = {"Succeeded": "Completed", "Failed": "Failed", "Stopped": "Stopped"}


class Jobs(Kind):
    """Describe answers with the status of the pipeline step that began the job."""

    def __init__(self, noun: str, path: str, executions: Executions) -> None:
        super().__init__(noun, path)
        self.executions = executions

    def add(self, parameters: Record) -> Record:
        _check_spot(parameters.get("TrainingJobDefinition", parameters))
        return super().add(parameters)

    def describe(self, call: Call) -> Answer:
        record = self.get(self._asked(call))
        step = self.executions.step_of(record[f"{self.noun}Arn"])
        reason = {"FailureReason": step["FailureReason"]} if "FailureReason" in step else {}
        status = _STATUS.get(step.get("StepStatus", ""), "InProgress")
        facts = self.executions.facts_of(record[f"{self.noun}Arn"])
        return json_answer({**record, **facts, f"{self.noun}Status": status, **reason})

    def trials(self, call: Call) -> Answer:
        """ListTrainingJobsForHyperParameterTuningJob."""
        facts = self.executions.facts_of(self.get(self._asked(call))[f"{self.noun}Arn"])
        return page(call, list(facts.get("TrainingJobSummaries", [])))


def _check_spot(request: Record) -> None:
    """CreateTrainingJob's rule on MaxWaitTimeInSeconds; raises ApiError."""
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
