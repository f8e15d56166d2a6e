"""Lambda: moto's class drops architecture, logging and dead letters, and gives versions no attributes."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from moto.awslambda.models import lambda_backends

from kennel.rehearsal.cloud.clients import admin
from kennel.rehearsal.cloud.cloudformation.types.resource import Made, Properties, Row, tag_map
from kennel.rehearsal.cloud.sagemaker.resources import ACCOUNT, REGION

_NOT_CREATE = ("ReservedConcurrentExecutions",)


def _function(properties: Properties) -> Properties:
    taken = {key: value for key, value in properties.items() if key not in _NOT_CREATE}
    return tag_map({**taken, "Code": _code(properties["Code"])})


def _code(code: Properties) -> Properties:
    """Source text in a template becomes index.py of a zip file, as CloudFormation makes it."""
    if "ZipFile" not in code:
        return code
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("index.py", code["ZipFile"])
    return {"ZipFile": content.getvalue()}


def _made(made: Made) -> None:
    name = made.physical
    if "ReservedConcurrentExecutions" in made.wanted:
        count = int(made.wanted["ReservedConcurrentExecutions"])
        admin("lambda").put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=count)
    function: Any = lambda_backends[ACCOUNT][REGION].get_function(name)
    # moto's class drops these; patches.py shows them, cloud/functions.py uses them.
    function.kept = {key: made.wanted[key] for key in ("DeadLetterConfig", "LoggingConfig") if key in made.wanted}


def _update(made: Made, wanted: Properties) -> bool:
    """Code and configuration change in place; another name means another function."""
    name = made.physical
    if wanted.get("FunctionName", name) != name:
        return False
    taken = ("Role", "Handler", "Timeout", "MemorySize", "Environment", "Runtime", "Description", "TracingConfig")
    changed = {key: wanted[key] for key in taken if key in wanted}
    admin("lambda").update_function_configuration(FunctionName=name, **changed)
    if wanted["Code"] != made.wanted["Code"]:
        admin("lambda").update_function_code(FunctionName=name, **_code(wanted["Code"]))
    made.wanted = {"FunctionName": name, **wanted}
    _made(made)
    return True


def _alias(properties: Properties) -> Properties:
    """Without provisioned concurrency, of which moto holds none: the coverage report says so."""
    return {key: value for key, value in properties.items() if key != "ProvisionedConcurrencyConfig"}


def _update_alias(made: Made, wanted: Properties) -> bool:
    if (wanted["FunctionName"], wanted["Name"]) != (made.wanted["FunctionName"], made.wanted["Name"]):
        return False
    admin("lambda").update_alias(**_alias(wanted))
    made.wanted = wanted
    return True


ROWS = [
    Row(
        type="AWS::Lambda::Function",
        service="lambda",
        create="CreateFunction",
        name="FunctionName",
        shape=_function,
        ref=lambda made: str(made.wanted["FunctionName"]),
        attributes={"Arn": lambda made: str(made.answer["FunctionArn"])},
        after=_made,
        update=_update,
        delete=lambda made: admin("lambda").delete_function(FunctionName=made.physical),
    ),
    Row(
        type="AWS::Lambda::Version",
        service="lambda",
        create="PublishVersion",
        ref=lambda made: str(made.answer["FunctionArn"]),
        attributes={
            "Version": lambda made: str(made.answer["Version"]),
            "FunctionArn": lambda made: str(made.answer["FunctionArn"]),
        },
    ),
    Row(
        type="AWS::Lambda::Alias",
        service="lambda",
        create="CreateAlias",
        shape=_alias,
        ref=lambda made: str(made.answer["AliasArn"]),
        attributes={"AliasArn": lambda made: str(made.answer["AliasArn"])},
        update=_update_alias,
        delete=lambda made: admin("lambda").delete_alias(
            FunctionName=made.wanted["FunctionName"], Name=made.wanted["Name"]
        ),
    ),
    Row(
        type="AWS::Lambda::EventInvokeConfig",
        service="lambda",
        create="PutFunctionEventInvokeConfig",
        ref=lambda made: f"{made.wanted['FunctionName']}:{made.wanted['Qualifier']}",
        delete=lambda made: admin("lambda").delete_function_event_invoke_config(
            FunctionName=made.wanted["FunctionName"]
        ),
    ),
    Row(
        type="AWS::Lambda::Permission",
        service="lambda",
        create="AddPermission",
        name="StatementId",
        ref=lambda made: str(made.wanted["StatementId"]),
        delete=lambda made: admin("lambda").remove_permission(
            FunctionName=made.wanted["FunctionName"], StatementId=made.wanted["StatementId"]
        ),
    ),
]
