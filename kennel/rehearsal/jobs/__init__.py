"""Runs a SageMaker pipeline's definition for real: each job request as processes on this machine."""

from kennel.rehearsal.containers import pick_engine
from kennel.rehearsal.jobs.events import StepEvent
from kennel.rehearsal.jobs.runner import PipelineRunner

__all__ = ["PipelineRunner", "StepEvent", "pick_engine"]
