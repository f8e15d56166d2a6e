"""SageMaker's types: the embedded control plane stores all properties, so create and read are the API's own."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from botocore import xform_name  # type: ignore[import-untyped]
from botocore.exceptions import WaiterError  # type: ignore[import-untyped]

from kennel.rehearsal.cloud.clients import client
from kennel.rehearsal.cloud.cloudformation.resource import Created, EnactedType, Properties, Read, call, named


@dataclass
class EndpointHandler:
    """CloudFormation's handler of endpoints. AWS does not say whether it notices that SageMaker has rolled back."""

    notices_rollback: bool = True


HANDLER = EndpointHandler()
_WAITER = {"Delay": 0.05, "MaxAttempts": 18_000}  # 15 minutes


def _named(noun: str, ref: str = "Arn", **rest: Any) -> EnactedType:
    name = f"{noun}Name"

    def parameters(physical_id: str, properties: Properties) -> Properties:
        return {name: properties.get(name, physical_id.rpartition("/")[2])}

    defaults = {
        "ref": lambda created: str(created.answer.get(f"{noun}{ref}", created.properties[name])),
        "attributes": {
            name: lambda created: str(created.properties[name]),
            f"{noun}Arn": lambda created: str(created.answer[f"{noun}Arn"]),
        },
        "reads": [Read(xform_name(f"Describe{noun}"), parameters)],
    }
    return named(f"AWS::SageMaker::{noun}", "sagemaker", f"Create{noun}", f"Delete{noun}", name, **{**defaults, **rest})


def _pipeline(properties: Properties) -> Properties:
    body = properties["PipelineDefinition"]["PipelineDefinitionBody"]
    return {**properties, "PipelineDefinition": body}


def _update_pipeline(created: Created, _before: Properties) -> None:
    call("sagemaker", "UpdatePipeline", _pipeline(created.properties))


def _wait_for_service(created: Created) -> None:
    """Wait for the endpoint; raise RuntimeError with SageMaker's reason when it does not serve its configuration."""
    sagemaker = client("sagemaker")
    name, config = (created.properties[key] for key in ("EndpointName", "EndpointConfigName"))
    with suppress(WaiterError):  # whose text lacks the reason
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=_WAITER)
    about = sagemaker.describe_endpoint(EndpointName=name)
    rolled_back = about["EndpointConfigName"] != config and HANDLER.notices_rollback
    if about["EndpointStatus"] != "InService" or rolled_back:
        reason = about.get("FailureReason", "SageMaker went back to the previous configuration.")
        raise RuntimeError(f"Endpoint {name} failed: {reason}")


def _update_endpoint(created: Created, _before: Properties) -> None:
    call("sagemaker", "UpdateEndpoint", created.properties)
    _wait_for_service(created)


TYPES = [
    _named("Model"),
    _named("EndpointConfig"),
    _named(
        "Endpoint",
        after=_wait_for_service,
        update=_update_endpoint,
        note="served by one process for each instance; an update takes simulated time",
    ),
    _named("ModelPackageGroup"),
    _named("Pipeline", "Name", parameters=_pipeline, update=_update_pipeline),
]
