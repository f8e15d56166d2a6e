"""One execution of a pipeline: which step next, with what values, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from kennel.rehearsal.containers import ContainerError
from kennel.rehearsal.jobs.conditions import holds
from kennel.rehearsal.jobs.context import Context
from kennel.rehearsal.jobs.events import DefinitionError, JobFailed, StepEvent
from kennel.rehearsal.jobs.language import Values
from kennel.rehearsal.jobs.plan import Planned
from kennel.rehearsal.jobs.processing import run_processing
from kennel.rehearsal.jobs.training import TrainingJob
from kennel.rehearsal.jobs.tuning import TUNING_NAME, run_tuning


class Run:
    """Takes the steps of one execution, which `context` names; each leaves its properties for those after it."""

    def __init__(self, context: Context, parameters: Mapping[str, Any]) -> None:
        self._context = context
        execution = context.execution
        started = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        variables = {
            "PipelineExecutionId": execution.id,
            "PipelineExecutionArn": execution.arn,
            "PipelineName": execution.pipeline_name,
            "PipelineArn": execution.arn.rsplit("/execution/", 1)[0],
            "StartDateTime": started,
            "CurrentDateTime": started,
        }
        # The service reads a property file as the pipeline's role.
        self._values = Values(parameters, variables, lambda uri: context.store(execution.role_arn).read(uri))
        self._outcomes: dict[str, bool] = {}
        self._passed_over: set[str] = set()

    def all_steps(self, steps: list[Planned]) -> None:
        for planned in steps:
            if self._context.stopping:
                raise JobFailed("Stopped: the pipeline execution was stopped.")
            if self._chosen(planned):
                self._step(planned.step)
            else:
                self._passed_over.add(planned.name)

    def _chosen(self, planned: Planned) -> bool:
        if planned.needs & self._passed_over:
            return False
        return planned.guard is None or self._outcomes[planned.guard[0]] == planned.guard[1]

    def _step(self, step: Mapping[str, Any]) -> None:
        name = step["Name"]
        record: dict[str, Any] = {"StepName": name, "StepStatus": "Executing", "StartTime": time.time()}
        if "DisplayName" in step:
            record["StepDisplayName"] = step["DisplayName"]
        self._context.execution.steps.append(record)
        self._context.on_event(StepEvent(name, "started", step["Type"]))
        try:
            detail = self._perform(step, record)
        except BaseException as error:
            record |= {"StepStatus": "Failed", "FailureReason": _reason(error), "EndTime": time.time()}
            self._context.on_event(StepEvent(name, "failed", record["FailureReason"]))
            if isinstance(error, JobFailed | ContainerError | OSError | ClientError | BotoCoreError):
                raise JobFailed(f"{name}: {record['FailureReason']}") from error
            raise
        record |= {"StepStatus": "Succeeded", "EndTime": time.time()}
        self._context.on_event(StepEvent(name, "finished", detail))

    def _perform(self, step: Mapping[str, Any], record: dict[str, Any]) -> str:
        kinds: dict[str, Callable[[Mapping[str, Any], dict[str, Any]], str]] = {
            "Condition": self._condition,
            "Processing": self._processing,
            "Training": self._training,
            "Tuning": self._tuning,
            "RegisterModel": self._register,
            "Fail": self._fail,
        }
        if step["Type"] not in kinds:
            raise DefinitionError(
                f"Steps of type {step['Type']} cannot be rehearsed; those of type {', '.join(kinds)} can."
            )
        try:
            return kinds[step["Type"]](step, record)
        except KeyError as error:
            raise DefinitionError(f"The step {step['Name']} lacks {error} in its Arguments.") from error

    def _condition(self, step: Mapping[str, Any], record: dict[str, Any]) -> str:
        outcome = all(holds(condition, self._values) for condition in step["Arguments"]["Conditions"])
        self._outcomes[step["Name"]] = outcome
        record["Metadata"] = {"Condition": {"Outcome": str(outcome)}}
        return str(outcome)

    def _processing(self, step: Mapping[str, Any], record: dict[str, Any]) -> str:
        arn = self._context.arn("processing-job", self._context.job_name(step["Name"]))
        record["Metadata"] = {"ProcessingJob": {"Arn": arn}}
        with self._context.timed("Processing", arn):
            self._remember(step, run_processing(self._context, step, self._arguments(step)))
        return ""

    def _training(self, step: Mapping[str, Any], record: dict[str, Any]) -> str:
        name = self._context.job_name(step["Name"])
        arn = self._context.arn("training-job", name)
        record["Metadata"] = {"TrainingJob": {"Arn": arn}}
        request = self._arguments(step)
        self._context.create("create_training_job", {"TrainingJobName": name, **request})
        with self._context.timed("Training", arn):
            done = TrainingJob(self._context, step["Name"], name, request).run()
        self._context.note(arn, FinalMetricDataList=done["FinalMetricDataList"], ModelArtifacts=done["ModelArtifacts"])
        self._remember(step, done)
        return ", ".join(f"{item['MetricName']} {item['Value']:g}" for item in done["FinalMetricDataList"])

    def _tuning(self, step: Mapping[str, Any], record: dict[str, Any]) -> str:
        name = self._context.job_name(step["Name"], TUNING_NAME)
        record["Metadata"] = {"TuningJob": {"Arn": self._context.arn("hyper-parameter-tuning-job", name)}}
        done = run_tuning(self._context, step, self._arguments(step))
        self._remember(step, done)
        best = done["BestTrainingJob"]
        final = best["FinalHyperParameterTuningJobObjectiveMetric"]
        chosen = ", ".join(f"{name} {value}" for name, value in best["TunedHyperParameters"].items())
        return f"best {final['MetricName']} {final['Value']:g} with {chosen}"

    def _register(self, step: Mapping[str, Any], record: dict[str, Any]) -> str:
        request = self._arguments(step)
        arn = self._context.create("create_model_package", request)["ModelPackageArn"]
        record["Metadata"] = {"RegisterModel": {"Arn": arn}}
        self._remember(step, {**request, "ModelPackageArn": arn})
        return str(arn)

    def _fail(self, step: Mapping[str, Any], record: dict[str, Any]) -> str:
        message = str(self._arguments(step).get("ErrorMessage", ""))
        record["Metadata"] = {"Fail": {"ErrorMessage": message}}
        raise JobFailed(message)

    def _arguments(self, step: Mapping[str, Any]) -> Any:
        return self._values.resolve(step.get("Arguments", {}))

    def _remember(self, step: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
        self._values.properties[step["Name"]] = properties


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:3000]
