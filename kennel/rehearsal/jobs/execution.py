"""One execution of a pipeline: runs its steps in order and records what became of each."""

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from kennel.rehearsal.containers.engine import ContainerEngine, ContainerError
from kennel.rehearsal.interfaces import PipelineExecution
from kennel.rehearsal.jobs.context import Context
from kennel.rehearsal.jobs.contract import JobFailed
from kennel.rehearsal.jobs.language import DefinitionError, PlannedStep, Values, plan, resolve_parameters
from kennel.rehearsal.jobs.processing import run_processing
from kennel.rehearsal.jobs.training import TUNING_NAME_LENGTH, TrainingJob, run_tuning

_CLOSE_S = 20.0
_REASON_LENGTH = 3000  # characters


class PipelineRunner:
    """Runs pipeline executions, each in the thread that calls `run`.

    `client(service, role_arn)` returns a boto3 client that calls as that role; `work` is the folder of the jobs'
    /opt/ml trees; `interrupt_spot` takes the first spot job's instance away once.
    """

    def __init__(
        self,
        *,
        client: Callable[[str, str | None], Any],
        work: Path,
        containers: ContainerEngine,
        interrupt_spot: bool = False,
    ) -> None:
        self._closed = threading.Event()
        self._running: set[threading.Thread] = set()
        self._context = partial(
            Context, client=client, work=work, engine=containers, interrupt_spot=interrupt_spot, closed=self._closed
        )

    def run(self, execution: PipelineExecution) -> None:
        """Run to the end; raise JobFailed with the reason of the first step that fails."""
        self._running.add(threading.current_thread())
        try:
            parameters = resolve_parameters(execution.definition, execution.parameters)
            Execution(self._context(execution), parameters).run(plan(execution.definition))
        finally:
            self._running.discard(threading.current_thread())

    def close(self) -> None:
        """Kill all running jobs, and return when `run` has ended in every thread."""
        self._closed.set()
        for thread in self._running - {threading.current_thread()}:
            thread.join(_CLOSE_S)


class Execution:
    """The steps of one execution; each step's properties can be used by the steps after it."""

    def __init__(self, context: Context, parameters: Mapping[str, Any]) -> None:
        self._context, execution = context, context.execution
        # The service reads a property file as the pipeline's role.
        self._values = Values(
            parameters,
            {"PipelineExecutionId": execution.id},
            lambda uri: context.store(execution.role_arn).read(uri),
        )
        self._outcomes: dict[str, bool] = {}
        self._skipped: set[str] = set()

    def run(self, steps: list[PlannedStep]) -> None:
        """Run `steps`, without those of a branch that was not taken; raise JobFailed at the first failure."""
        for planned in steps:
            if self._context.stopping:
                raise JobFailed("Stopped: the pipeline execution was stopped.")
            if self._is_chosen(planned):
                self._run_step(planned.step)
            else:
                self._skipped.add(planned.name)

    def _is_chosen(self, planned: PlannedStep) -> bool:
        if planned.needs & self._skipped:
            return False
        return planned.branch is None or self._outcomes[planned.branch[0]] == planned.branch[1]

    def _run_step(self, step: Mapping[str, Any]) -> None:
        name = step["Name"]
        record: dict[str, Any] = {"StepName": name, "StepStatus": "Executing", "StartTime": time.time()}
        self._context.execution.steps.append(record)
        try:
            self._values.properties[name] = self._run_type(step, record)
        except BaseException as error:
            reason = (str(error) or type(error).__name__)[:_REASON_LENGTH]
            record |= {"StepStatus": "Failed", "FailureReason": reason, "EndTime": time.time()}
            if isinstance(error, JobFailed | ContainerError | OSError | ClientError | BotoCoreError):
                raise JobFailed(f"{name}: {reason}") from error
            raise
        record |= {"StepStatus": "Succeeded", "EndTime": time.time()}

    def _run_type(self, step: Mapping[str, Any], record: dict[str, Any]) -> Mapping[str, Any]:
        types: dict[str, Callable[[Mapping[str, Any], dict[str, Any]], Mapping[str, Any]]] = {
            "Condition": self._condition,
            "Processing": self._processing,
            "Training": self._training,
            "Tuning": self._tuning,
            "RegisterModel": self._register,
            "Fail": self._fail,
        }
        if step["Type"] not in types:
            raise DefinitionError(
                f"Steps of type {step['Type']} cannot be rehearsed; those of type {', '.join(types)} can."
            )
        try:
            return types[step["Type"]](step, record)
        except KeyError as error:
            raise DefinitionError(f"The step {step['Name']} lacks {error} in its Arguments.") from error

    def _condition(self, step: Mapping[str, Any], record: dict[str, Any]) -> Mapping[str, Any]:
        outcome = all(self._values.is_true(condition) for condition in step["Arguments"]["Conditions"])
        self._outcomes[step["Name"]] = outcome
        record["Metadata"] = {"Condition": {"Outcome": str(outcome)}}
        return {}

    def _processing(self, step: Mapping[str, Any], record: dict[str, Any]) -> Mapping[str, Any]:
        name = self._context.job_name(step["Name"])
        arn = self._context.arn("processing-job", name)
        record["Metadata"] = {"ProcessingJob": {"Arn": arn}}
        with self._context.timed("Processing", arn):
            return run_processing(self._context, name, step, self._arguments(step))

    def _training(self, step: Mapping[str, Any], record: dict[str, Any]) -> Mapping[str, Any]:
        name = self._context.job_name(step["Name"])
        arn = self._context.arn("training-job", name)
        record["Metadata"] = {"TrainingJob": {"Arn": arn}}
        request = self._arguments(step)
        self._context.create("create_training_job", {"TrainingJobName": name, **request})
        with self._context.timed("Training", arn):
            done = TrainingJob(self._context, name, request).run()
        self._context.record(arn, **{key: done[key] for key in ("FinalMetricDataList", "ModelArtifacts")})
        return done

    def _tuning(self, step: Mapping[str, Any], record: dict[str, Any]) -> Mapping[str, Any]:
        name = self._context.job_name(step["Name"], TUNING_NAME_LENGTH)
        record["Metadata"] = {"TuningJob": {"Arn": self._context.arn("hyper-parameter-tuning-job", name)}}
        return run_tuning(self._context, name, self._arguments(step))

    def _register(self, step: Mapping[str, Any], record: dict[str, Any]) -> Mapping[str, Any]:
        request = self._arguments(step)
        arn = self._context.create("create_model_package", request)["ModelPackageArn"]
        record["Metadata"] = {"RegisterModel": {"Arn": arn}}
        return {**request, "ModelPackageArn": arn}

    def _fail(self, step: Mapping[str, Any], record: dict[str, Any]) -> Mapping[str, Any]:
        message = str(self._arguments(step)["ErrorMessage"])
        record["Metadata"] = {"Fail": {"ErrorMessage": message}}
        raise JobFailed(message)

    def _arguments(self, step: Mapping[str, Any]) -> Any:
        return self._values.resolve(step["Arguments"])
