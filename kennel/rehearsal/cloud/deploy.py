"""Deploys the stacks of one stage into the embedded AWS, as `cdk bootstrap` and `cdk deploy` do."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kennel.errors import KennelError
from kennel.rehearsal.cloud.assembly import Asset, StackFile, stacks_of
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION
from kennel.rehearsal.cloud.cloudformation.coverage import coverage_of_stack
from kennel.rehearsal.cloud.server import Cloud
from kennel.rehearsal.interfaces import CoverageRow

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass
class Deployed:
    """What a deployment left: the outputs of each stack, and how truly each resource is held."""

    stage: str
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    coverage: list[CoverageRow] = field(default_factory=list)


def deploy(cloud: Cloud, assembly_dir: Path, stage: str, progress: Callable[..., None] = lambda *_: None) -> Deployed:
    """Deploy `stage`; raises KennelError with the resource that failed and its reason."""
    stacks = stacks_of(assembly_dir, stage)
    _bootstrap(cloud)
    done: set[str] = set()
    deployed = Deployed(stage)
    for stack in stacks:
        for asset in stack.assets:
            if asset.key not in done:
                _publish(cloud, asset)
                done.add(asset.key)
        deployed.outputs[stack.name] = _deploy(cloud, stack)
        progress(f"{stack.name}: {len(stack.read()['Resources'])} resources")
    deployed.coverage = coverage(cloud, assembly_dir, stage)
    return deployed


def coverage(cloud: Cloud, assembly_dir: Path, stage: str) -> list[CoverageRow]:
    """How truly each resource is held now; a release makes the endpoint, so ask again after it."""
    return [row for stack in stacks_of(assembly_dir, stage) for row in coverage_of_stack(stack.name, stack.read())]


def _bootstrap(cloud: Cloud) -> None:
    """What `cdk bootstrap` would leave, as far as templates look at it."""
    cloud.client("s3").create_bucket(Bucket=_place(f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"))
    cloud.client("ssm").put_parameter(
        Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String", Overwrite=True
    )


def _place(text: str) -> str:
    """The placeholders of a cloud assembly that knows neither account nor region."""
    for name, value in (("AccountId", ACCOUNT), ("Region", REGION), ("Partition", "aws")):
        text = text.replace(f"${{AWS::{name}}}", value)
    return text


def _publish(cloud: Cloud, asset: Asset) -> None:
    body = _zipped(asset.source) if asset.zipped else asset.source.read_bytes()
    cloud.client("s3").put_object(Bucket=_place(asset.bucket), Key=asset.key, Body=body)


def _zipped(folder: Path) -> bytes:
    """With one time for all members, so that the same folder gives the same bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
            info.external_attr = (path.stat().st_mode & 0o777) << 16
            archive.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _deploy(cloud: Cloud, stack: StackFile) -> dict[str, str]:
    cloudformation = cloud.client("cloudformation")
    parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in stack.parameters.items()]
    cloudformation.create_stack(
        StackName=stack.name,
        TemplateBody=stack.template.read_text(),
        Parameters=parameters,
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
    )
    about = cloudformation.describe_stacks(StackName=stack.name)["Stacks"][0]
    if about["StackStatus"] != "CREATE_COMPLETE":
        raise KennelError(_failure(cloudformation, stack.name, about))
    return {one["OutputKey"]: one["OutputValue"] for one in about.get("Outputs", [])}


def _failure(cloudformation: Any, name: str, about: dict[str, Any]) -> str:
    for event in reversed(cloudformation.describe_stack_events(StackName=name)["StackEvents"]):
        if event["ResourceStatus"] == "CREATE_FAILED":
            what = f"{event['ResourceType']} {event['LogicalResourceId']}"
            return f"{name} could not be deployed: {what}: {event.get('ResourceStatusReason', 'no reason given')}"
    return f"{name} is {about['StackStatus']}: {about.get('StackStatusReason', 'no reason given')}"
