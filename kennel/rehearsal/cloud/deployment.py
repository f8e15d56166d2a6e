"""Deploys the stacks of one stage of a cloud assembly (cdk.out), as `cdk bootstrap` and `cdk deploy` do."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kennel.assembly import Asset, StackFile, stacks_of
from kennel.errors import KennelError
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION
from kennel.rehearsal.cloud.cloudformation.coverage import coverage_of_stack
from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.interfaces import CoverageRow


@dataclass
class Deployed:
    """The result of a deployment: the outputs of each stack, and how far each resource is enacted."""

    stage: str
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    coverage: list[CoverageRow] = field(default_factory=list)

    def name(self, stack: str) -> str:
        """Return the full name of the stage's `stack`, such as Data, whatever prefix the app gives its stacks."""
        return next(name for name in self.outputs if name.endswith(f"{self.stage}-{stack}"))

    def of(self, stack: str) -> dict[str, str]:
        return self.outputs[self.name(stack)]


def deploy(cloud: Cloud, assembly_dir: Path, stage: str, progress: Callable[..., None] = lambda *_: None) -> Deployed:
    """Deploy `stage` into an empty account; raise KennelError with the resource that failed and its reason.

    It makes the calls that the CDK command line makes, in a second or two; what exists already needs update.py.
    """
    bootstrap(cloud)
    done: set[str] = set()
    for stack in stacks_of(assembly_dir, stage):
        for asset in stack.assets:
            if asset.key not in done:
                _publish(cloud, asset)
                done.add(asset.key)
        _deploy(cloud, stack)
        progress(f"{stack.name}: {len(stack.read()['Resources'])} resources")
    return deployed_stage(cloud, assembly_dir, stage)


def deployed_stage(cloud: Cloud, assembly_dir: Path, stage: str) -> Deployed:
    """Return the outputs and the coverage of a stage whose stacks are all deployed."""
    deployed = Deployed(stage, coverage=coverage_of(assembly_dir, stage))
    for stack in stacks_of(assembly_dir, stage):
        about = cloud.client("cloudformation").describe_stacks(StackName=stack.name)["Stacks"][0]
        deployed.outputs[stack.name] = {one["OutputKey"]: one["OutputValue"] for one in about.get("Outputs", [])}
    return deployed


def coverage_of(assembly_dir: Path, stage: str) -> list[CoverageRow]:
    """Return how far each resource of the deployed stage is enacted now; a release creates the endpoint's."""
    return [row for stack in stacks_of(assembly_dir, stage) for row in coverage_of_stack(stack.name, stack.read())]


def bootstrap(cloud: Cloud) -> None:
    """Create what `cdk bootstrap` would, as far as templates refer to it."""
    cloud.client("s3").create_bucket(Bucket=f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}")
    cloud.client("ssm").put_parameter(
        Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String", Overwrite=True
    )


def _without_placeholders(text: str) -> str:
    """Fill in the placeholders of a cloud assembly that knows neither account nor region."""
    for name, value in (("AccountId", ACCOUNT), ("Region", REGION), ("Partition", "aws")):
        text = text.replace(f"${{AWS::{name}}}", value)
    return text


def _publish(cloud: Cloud, asset: Asset) -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = shutil.make_archive(f"{folder}/asset", "zip", asset.source) if asset.zipped else asset.source
        body = Path(archive).read_bytes()
    cloud.client("s3").put_object(Bucket=_without_placeholders(asset.bucket), Key=asset.key, Body=body)


def _deploy(cloud: Cloud, stack: StackFile) -> None:
    cloudformation = cloud.client("cloudformation")
    parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in stack.parameters.items()]
    cloudformation.create_stack(
        StackName=stack.name,
        TemplateBody=stack.template.read_text(),
        Parameters=parameters,
        Tags=[{"Key": key, "Value": value} for key, value in stack.tags.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
    )
    about = cloudformation.describe_stacks(StackName=stack.name)["Stacks"][0]
    if about["StackStatus"] != "CREATE_COMPLETE":
        raise KennelError(_failure(cloudformation, stack.name, about))


def _failure(cloudformation: Any, name: str, about: dict[str, Any]) -> str:
    for event in reversed(cloudformation.describe_stack_events(StackName=name)["StackEvents"]):
        if event["ResourceStatus"] == "CREATE_FAILED":
            what = f"{event['ResourceType']} {event['LogicalResourceId']}"
            return f"{name} could not be deployed: {what}: {event.get('ResourceStatusReason', 'no reason given')}"
    return f"{name} is {about['StackStatus']}: {about.get('StackStatusReason', 'no reason given')}"
