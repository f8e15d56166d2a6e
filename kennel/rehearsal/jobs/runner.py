"""Runs pipeline executions, and ends them when the rehearsal ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kennel.rehearsal.containers import ContainerEngine
from kennel.rehearsal.interfaces import PipelineExecution
from kennel.rehearsal.jobs.context import Context
from kennel.rehearsal.jobs.events import JobFailed, OnEvent
from kennel.rehearsal.jobs.execution import Run
from kennel.rehearsal.jobs.parameters import resolve_parameters
from kennel.rehearsal.jobs.plan import plan

Client = Callable[[str, str | None], Any]
_CLOSE_S = 20.0


class PipelineRunner:
    """Runs pipeline executions, one step after the other.

    `client(service, role_arn)` makes a boto3 client that calls as that role; `work` is where /opt/ml trees live;
    `interrupt_spot` takes the first spot job's instance away once; `seed` is for tuning jobs that name none.
    """

    def __init__(
        self,
        *,
        client: Client,
        work: Path,
        containers: ContainerEngine,
        on_event: OnEvent,
        interrupt_spot: bool,
        seed: int,
    ) -> None:
        self._client, self._work, self._containers = client, work, containers
        self._on_event, self._interrupt_spot, self._seed = on_event, interrupt_spot, seed
        self._closed = threading.Event()
        self._running: set[threading.Thread] = set()

    def run(self, execution: PipelineExecution) -> None:
        """Run to the end. Failure is a result: it stands in `status`, `failure_reason` and `steps`."""
        self._running.add(threading.current_thread())
        try:
            run = Run(self._context(execution), resolve_parameters(execution.definition, execution.parameters))
            run.all_steps(plan(execution.definition))
        except JobFailed as error:
            stopped = execution.status == "Stopping"
            execution.failure_reason = "" if stopped else str(error)
            execution.status = "Stopped" if stopped else "Failed"
        except BaseException:
            execution.status = "Stopped"
            raise
        else:
            execution.status = "Succeeded"
        finally:
            self._running.discard(threading.current_thread())

    def close(self) -> None:
        """Kill what runs, and return when `run` has ended in every thread."""
        self._closed.set()
        for thread in self._running - {threading.current_thread()}:
            thread.join(_CLOSE_S)

    def _context(self, execution: PipelineExecution) -> Context:
        return Context(
            execution=execution,
            client=self._client,
            engine=self._containers,
            work=self._work,
            on_event=self._on_event,
            interruptions=int(self._interrupt_spot),
            seed=self._seed,
            closed=self._closed,
        )
