"""Lambda's types, and CodeDeploy's groups that shift an alias's calls from version to version.

moto's own classes drop architecture, logging and dead letters, and give versions no attributes.
"""

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from botocore.exceptions import WaiterError  # type: ignore[import-untyped]
from moto.awslambda.models import lambda_backends

from kennel.rehearsal.cloud.api import ApiError
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION, client
from kennel.rehearsal.cloud.cloudformation.resource import (
    Created,
    EnactedType,
    Properties,
    Read,
    by_id,
    by_properties,
    call,
    named,
    with_tag_map,
)


def _function(properties: Properties) -> Properties:
    return with_tag_map({**properties, "Code": _code(properties["Code"])})


def _code(code: Properties) -> Properties:
    """Return source text in a template as index.py of a zip file, as CloudFormation does."""
    if "ZipFile" not in code:
        return code
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("index.py", code["ZipFile"])
    return {"ZipFile": content.getvalue()}


def _configure(created: Created) -> None:
    name = created.physical_id
    if "ReservedConcurrentExecutions" in created.properties:
        count = int(created.properties["ReservedConcurrentExecutions"])
        client("lambda").put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=count)
    function: Any = lambda_backends[ACCOUNT][REGION].get_function(name)
    # moto's class drops these two; moto_patches.py shows them and lambda_functions.py uses them.
    dropped = ("DeadLetterConfig", "LoggingConfig")
    function.more_configuration = {key: created.properties[key] for key in dropped if key in created.properties}


def _update(created: Created, before: Properties) -> None:
    name, properties = created.physical_id, created.properties
    call("lambda", "UpdateFunctionConfiguration", properties)
    if properties["Code"] != before["Code"]:
        client("lambda").update_function_code(FunctionName=name, **_code(properties["Code"]))
    _configure(created)


_WAITER = {"Delay": 0.05, "MaxAttempts": 72_000}  # an hour


def _update_alias(created: Created, before: Properties) -> None:
    """Change an alias; raise RuntimeError where CodeDeploy does not bring it to its new version."""
    wanted = created.properties
    policy = wanted.get("UpdatePolicy", {}).get("CodeDeployLambdaAliasUpdate")
    now = client("lambda").get_alias(FunctionName=wanted["FunctionName"], Name=wanted["Name"])["FunctionVersion"]
    if policy and now != wanted["FunctionVersion"]:
        if wanted.get("ProvisionedConcurrencyConfig") != before.get("ProvisionedConcurrencyConfig"):
            raise RuntimeError("Alias with weights can not be used with Provisioned Concurrency")
        _shift(wanted, policy, now)
    call("lambda", "UpdateAlias", wanted)


def _shift(wanted: Properties, policy: Properties, now: str) -> None:
    names = {"Name": wanted["FunctionName"], "Alias": wanted["Name"]}
    versions = {"CurrentVersion": now, "TargetVersion": wanted["FunctionVersion"]}
    function = {"Type": "AWS::Lambda::Function", "Properties": {**names, **versions}}
    hook = policy.get("BeforeAllowTrafficHook")
    hooks = [{"BeforeAllowTraffic": hook}] if hook else []
    spec = json.dumps({"version": 0.0, "Resources": [{wanted["FunctionName"]: function}], "Hooks": hooks})
    codedeploy = client("codedeploy")
    id_ = codedeploy.create_deployment(
        applicationName=policy["ApplicationName"],
        deploymentGroupName=policy["DeploymentGroupName"],
        revision={"revisionType": "AppSpecContent", "appSpecContent": {"content": spec}},
    )["deploymentId"]
    with suppress(WaiterError):  # whose text lacks the reason
        codedeploy.get_waiter("deployment_successful").wait(deploymentId=id_, WaiterConfig=_WAITER)
    about = codedeploy.get_deployment(deploymentId=id_)["deploymentInfo"]
    if about["status"] != "Succeeded":
        reason = about.get("errorInformation", {}).get("message", "no reason given")
        raise RuntimeError(f"CodeDeploy's deployment {id_} is {about['status']}: {reason}")


def _group(physical_id: str, properties: Properties) -> Properties:
    return {"applicationName": properties["ApplicationName"], "deploymentGroupName": physical_id}


def _mapping(properties: Properties) -> Properties:
    if properties.get("FunctionResponseTypes"):
        raise ApiError("Unsupported", "answers about single messages of a batch are not rehearsed")
    return properties


def _delete_by(operation: str, *names: str) -> Callable[[Created], None]:
    return lambda created: getattr(client("lambda"), operation)(**{name: created.properties[name] for name in names})


TYPES = [
    named(
        "AWS::Lambda::Function",
        "lambda",
        "CreateFunction",
        "DeleteFunction",
        "FunctionName",
        parameters=_function,
        attributes={"Arn": lambda created: str(created.answer["FunctionArn"])},
        after=_configure,
        update=_update,
        reads=[Read("get_function", by_id("FunctionName"))],
    ),
    EnactedType(
        type="AWS::Lambda::Version",
        service="lambda",
        create="PublishVersion",
        ref=lambda created: str(created.answer["FunctionArn"]),
        attributes={
            "Version": lambda created: str(created.answer["Version"]),
            "FunctionArn": lambda created: str(created.answer["FunctionArn"]),
        },
        reads=[Read("get_function_configuration", by_id("FunctionName"))],
    ),
    EnactedType(
        type="AWS::Lambda::Alias",
        service="lambda",
        create="CreateAlias",
        ref=lambda created: str(created.answer["AliasArn"]),
        attributes={"AliasArn": lambda created: str(created.answer["AliasArn"])},
        update=_update_alias,
        fixed=("FunctionName", "Name"),
        delete=_delete_by("delete_alias", "FunctionName", "Name"),
        reads=[Read("get_alias", by_properties("FunctionName", "Name"))],
        note="a shift to another version takes simulated time",
    ),
    named(
        "AWS::CodeDeploy::Application",
        "codedeploy",
        "CreateApplication",
        "DeleteApplication",
        "ApplicationName",
        reads=[Read("get_application", by_id("applicationName"))],
    ),
    EnactedType(
        type="AWS::CodeDeploy::DeploymentGroup",
        service="codedeploy",
        create="CreateDeploymentGroup",
        name="DeploymentGroupName",
        ref=lambda group: str(group.properties["DeploymentGroupName"]),
        update=lambda group, _before: call(
            "codedeploy",
            "UpdateDeploymentGroup",
            {**group.properties, "CurrentDeploymentGroupName": group.physical_id},
        ),
        fixed=("ApplicationName",),
        delete=lambda group: client("codedeploy").delete_deployment_group(
            **_group(group.physical_id, group.properties)
        ),
        reads=[Read("get_deployment_group", _group)],
    ),
    EnactedType(
        type="AWS::Lambda::EventInvokeConfig",
        service="lambda",
        create="PutFunctionEventInvokeConfig",
        ref=lambda created: f"{created.properties['FunctionName']}:{created.properties['Qualifier']}",
        delete=_delete_by("delete_function_event_invoke_config", "FunctionName"),
        reads=[Read("get_function_event_invoke_config", by_properties("FunctionName", "Qualifier"))],
    ),
    EnactedType(
        type="AWS::Lambda::EventSourceMapping",
        service="lambda",
        create="CreateEventSourceMapping",
        parameters=_mapping,
        ref=lambda created: str(created.answer["UUID"]),
        update=lambda created, _before: call(
            "lambda", "UpdateEventSourceMapping", {**_mapping(created.properties), "UUID": created.physical_id}
        ),
        fixed=("EventSourceArn",),
        delete=lambda created: client("lambda").delete_event_source_mapping(UUID=created.physical_id),
        reads=[
            Read("get_event_source_mapping", by_id("UUID")),
            Read("list_event_source_mappings", by_properties("FunctionName", "EventSourceArn")),
        ],
        note="what failed comes again after a sixtieth of the queue's visibility timeout",
    ),
    EnactedType(
        type="AWS::Lambda::Permission",
        service="lambda",
        create="AddPermission",
        name="StatementId",
        ref=lambda created: str(created.properties["StatementId"]),
        delete=_delete_by("remove_permission", "FunctionName", "StatementId"),
        reads=[Read("get_policy", by_properties("FunctionName"))],
    ),
]
