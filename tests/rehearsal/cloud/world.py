"""An embedded AWS with a data plane that only records what it is called with, for the tests of the control plane."""

import io
import itertools
import json
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from kennel.rehearsal.cloud.quotas import Quotas
from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.interfaces import (
    DataPlane,
    Deployment,
    EndpointAnswer,
    EndpointCall,
    FunctionAnswer,
    FunctionCall,
    PipelineExecution,
)

REGION_ARN = "us-east-1:123456789012"
ANYBODY = {
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}]
}


class World:
    """The calls of the data plane, and how it answers them."""

    def __init__(self, work: Path, quotas: Quotas | None = None) -> None:
        self.pipelines: list[PipelineExecution] = []
        self.calls: list[FunctionCall] = []
        self.deployments: list[Deployment] = []
        self.deleted: list[str] = []
        self.routes: list[Mapping[str, float]] = []
        self.endpoint_calls: list[EndpointCall] = []
        self.images: dict[str, Path] = {}  # tag: build context
        self.run: Callable[[PipelineExecution], None] = lambda execution: None
        self.function: Callable[[FunctionCall], FunctionAnswer] = lambda call: FunctionAnswer(
            b"{}", None, "the function's log\n"
        )
        self.container: Callable[[EndpointCall], EndpointAnswer] = lambda call: EndpointAnswer(200, b"{}", {})
        self.refuse_models: str | None = None
        hosting = (self._deploy, self._route, self.deleted.append, self._ask)
        data_plane = DataPlane(self._run, self._invoke, *hosting, self._build)
        self.cloud = Cloud(data_plane, work, quotas=quotas)
        self.cloud.bus.delays = itertools.repeat((0.0,))  # each event once, at once and in order

    def _run(self, execution: PipelineExecution) -> None:
        self.pipelines.append(execution)
        self.run(execution)

    def _invoke(self, call: FunctionCall) -> FunctionAnswer:
        self.calls.append(call)
        return self.function(call)

    def _deploy(self, deployment: Deployment) -> None:
        self.deployments.append(deployment)
        if self.refuse_models and self.refuse_models in deployment.model_data_url:
            raise RuntimeError(f"{deployment.model_data_url} does not load")

    def _build(self, tag: str, context: Path) -> None:
        self.images[tag] = context

    def _route(self, endpoint: str, shares: Mapping[str, float]) -> None:
        self.routes.append(shares)

    def _ask(self, call: EndpointCall) -> EndpointAnswer:
        self.endpoint_calls.append(call)
        return self.container(call)

    def role(self, name: str, *statements: dict[str, Any]) -> str:
        """Make a role with one inline policy and return its ARN."""
        iam = self.cloud.client("iam")
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(ANYBODY))["Role"]["Arn"]
        policy = {"Version": "2012-10-17", "Statement": list(statements)}
        if statements:
            iam.put_role_policy(RoleName=name, PolicyName="only", PolicyDocument=json.dumps(policy))
        return str(arn)

    def make_function(self, name: str, **members: Any) -> str:
        """Make a function with one version and the alias live, and return its ARN."""
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("app/handler.py", f"# {name}")
        functions = self.cloud.client("lambda")
        arn = functions.create_function(
            FunctionName=name,
            Runtime="python3.14",
            Role=self.role(f"{name}-role"),
            Handler="app.handler.handler",
            Code={"ZipFile": code.getvalue()},
            Timeout=7,
            MemorySize=512,
            Environment={"Variables": {"A": "1"}},
            **members,
        )["FunctionArn"]
        functions.publish_version(FunctionName=name)
        functions.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
        return str(arn)

    def learn(self, role_arn: str) -> None:
        """Make the pipeline Learn, whose parameters are Data and Epochs."""
        data, epochs = {"Name": "Data", "Type": "String"}, {"Name": "Epochs", "Type": "Integer", "DefaultValue": 5}
        steps = [{"Name": "Train", "Type": "Training", "Arguments": {}}]
        definition = {"Version": "2020-12-01", "Parameters": [data, epochs], "Steps": steps}
        self.cloud.client("sagemaker").create_pipeline(
            PipelineName="Learn",
            RoleArn=role_arn,
            PipelineDefinition=json.dumps(definition),
            ClientRequestToken="t" * 32,
        )

    def create(self, name: str, template: dict[str, Any], **parameters: str) -> dict[str, Any]:
        """Create a stack and return its description."""
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        cloudformation = self.cloud.client("cloudformation")
        cloudformation.create_stack(StackName=name, TemplateBody=json.dumps(template), Parameters=given)
        return self.stack(name)

    def update(self, name: str, template: dict[str, Any] | None = None, **parameters: str) -> dict[str, Any]:
        """Update a stack (None: with its previous template), wait for the end and return its description."""
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        body = {"UsePreviousTemplate": True} if template is None else {"TemplateBody": json.dumps(template)}
        self.cloud.client("cloudformation").update_stack(StackName=name, Parameters=given, **body)
        return self.wait(name)

    def wait(self, name: str) -> dict[str, Any]:
        """Wait until nothing changes the stack any more, and return its description."""
        eventually(lambda: not self.stack(name)["StackStatus"].endswith("IN_PROGRESS"))
        return self.stack(name)

    def stack(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.cloud.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
        return found

    def events(self, name: str) -> list[tuple[str, str, str]]:
        """(logical id, status, reason), oldest first."""
        found = self.cloud.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
        return [
            (one["LogicalResourceId"], one["ResourceStatus"], one.get("ResourceStatusReason", "")) for one in found
        ][::-1]


def eventually(true: Callable[[], Any], seconds: float = 60) -> Any:
    """Return what `true` returns once that is true; the limit only ends a test that hangs."""
    deadline, pause = time.monotonic() + seconds, 0.01
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(pause)  # longer each time: what looks may cost more than what it waits for
        pause = min(0.3, 1.5 * pause)
    return found


def refusal(call: Callable[..., Any], **parameters: Any) -> tuple[str, str]:
    """The code and the text of the error that `call` must end with."""
    try:
        call(**parameters)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["Error"]["Message"]
    raise AssertionError("nothing was refused")
