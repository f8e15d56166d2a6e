"""What the embedded control plane, the data planes and the report say to each other; nobody imports anybody else.

The control plane (`cloud/`) receives AWS API calls over HTTP. What must really happen then (run a pipeline's jobs,
run a function, start a model's server, ask it) is what the callables of `DataPlane` do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class PipelineExecution:
    """One StartPipelineExecution; `steps` is what ListPipelineExecutionSteps answers, in AWS's shape."""

    arn: str
    pipeline_name: str
    role_arn: str
    definition: Mapping[str, Any]
    parameters: Mapping[str, str]
    status: str = "Executing"
    failure_reason: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)  # by ARN: what Describe answers beyond the request

    @property
    def id(self) -> str:
        return self.arn.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class FunctionCall:
    """One Lambda Invoke. `code` is the unpacked asset; `environment` holds the template's variables only."""

    arn: str  # qualified, as the caller named it
    version: str
    handler: str
    code: Path
    role_arn: str
    environment: Mapping[str, str]
    timeout_s: float
    memory_mb: int
    payload: bytes


@dataclass(frozen=True)
class FunctionAnswer:
    """`error` is None, "Handled" or "Unhandled" (Lambda's FunctionError)."""

    payload: bytes
    error: str | None
    log: str


class TooManyRequests(RuntimeError):
    """Lambda's TooManyRequestsException (429): as many calls of the function run as may."""


@dataclass(frozen=True)
class Deployment:
    """What a fleet of an endpoint is to serve: the first container of its model, after its package is resolved.

    `config`: the endpoint configuration, which names the fleet; `answer_seconds`: SageMaker's limit for an answer.
    """

    endpoint: str
    config: str
    image: str
    model_data_url: str
    role_arn: str
    environment: Mapping[str, str]
    instance_count: int
    answer_seconds: float = 60.0


@dataclass(frozen=True)
class EndpointCall:
    endpoint: str
    body: bytes
    headers: Mapping[str, str]  # Content-Type, Accept, X-Amzn-SageMaker-*


@dataclass(frozen=True)
class EndpointAnswer:
    """The container's own answer; the control plane makes ModelError (424) of a status over 299.

    `config` names the fleet that was asked, `seconds` is how long it took. `broken`: there was no answer, for the
    connection broke or the time was over, and the status is what the service makes of that.
    """

    status: int
    body: bytes
    headers: Mapping[str, str]
    config: str = ""
    seconds: float = 0.0
    broken: bool = False


@dataclass(frozen=True)
class CoverageRow:
    """How far the embedded AWS enacts one resource; `status` is one of these.

    enacted: the rehearsal acts on it, and all its properties were read back as the template says.
    partial: the rehearsal acts on it; `note` names the properties that were not stored, or why it does not exist yet.
    accepted: it has a name and attributes, and nothing acts on it; `note` says what does not happen.
    stand-in: something else takes its place, as `note` says.
    """

    type: str
    logical_id: str
    status: str
    note: str = ""


@dataclass(frozen=True)
class UnusedPermission:
    """An action that a role's policy allows and no call has needed; `role` is `<stack>/<logical id>`."""

    role: str
    action: str


@dataclass
class DataPlane:
    """The data planes. Each callable blocks until the thing is done and raises with a reason when it cannot be."""

    run_pipeline: Callable[[PipelineExecution], None]
    invoke_function: Callable[[FunctionCall], FunctionAnswer]
    deploy_endpoint: Callable[[Deployment], None]  # starts a fleet beside the others; it gets no requests yet
    route_endpoint: Callable[[str, Mapping[str, float]], None]  # shares by configuration; other fleets are ended
    delete_endpoint: Callable[[str], None]
    invoke_endpoint: Callable[[EndpointCall], EndpointAnswer]
    build_image: Callable[[str, Path], None] = lambda tag, context: None  # `context` is the Dockerfile's folder
