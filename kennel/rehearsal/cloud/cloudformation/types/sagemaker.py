"""SageMaker: everything of these is held by the ledger, so create and read are the API's own."""

from __future__ import annotations

from botocore import xform_name  # type: ignore[import-untyped]

from kennel.rehearsal.cloud.clients import admin
from kennel.rehearsal.cloud.cloudformation.types.resource import Made, Properties, Row, wait

_DEPLOY_S = 900


def _row(noun: str, ref: str = "Arn") -> Row:
    def delete(made: Made) -> None:
        member = f"{noun}Name"
        getattr(admin("sagemaker"), xform_name(f"Delete{noun}"))(**{member: made.wanted[member]})

    return Row(
        type=f"AWS::SageMaker::{noun}",
        service="sagemaker",
        create=f"Create{noun}",
        name=f"{noun}Name",
        ref=lambda made: str(made.answer.get(f"{noun}{ref}", made.wanted[f"{noun}Name"])),
        attributes={
            f"{noun}Name": lambda made: str(made.wanted[f"{noun}Name"]),
            f"{noun}Arn": lambda made: str(made.answer[f"{noun}Arn"]),
        },
        delete=delete,
    )


def _pipeline(properties: Properties) -> Properties:
    body = properties["PipelineDefinition"]["PipelineDefinitionBody"]
    return {**properties, "PipelineDefinition": body, "ClientRequestToken": "k" * 32}


def _update_pipeline(made: Made, wanted: Properties) -> bool:
    if wanted.get("PipelineName", made.wanted["PipelineName"]) != made.wanted["PipelineName"]:
        return False
    admin("sagemaker").update_pipeline(
        PipelineName=made.wanted["PipelineName"],
        PipelineDefinition=wanted["PipelineDefinition"]["PipelineDefinitionBody"],
        RoleArn=wanted["RoleArn"],
    )
    made.wanted = {**made.wanted, **wanted}
    return True


def _in_service(name: str, config: str) -> None:
    """Wait for the endpoint; raises RuntimeError with SageMaker's reason when it does not serve `config`."""

    def settled() -> bool:
        return admin("sagemaker").describe_endpoint(EndpointName=name)["EndpointStatus"] not in ("Creating", "Updating")

    wait(settled, _DEPLOY_S)
    about = admin("sagemaker").describe_endpoint(EndpointName=name)
    if about["EndpointStatus"] != "InService" or about["EndpointConfigName"] != config:
        raise RuntimeError(f"Endpoint {name} failed: {about.get('FailureReason', about['EndpointStatus'])}")


def _update_endpoint(made: Made, wanted: Properties) -> bool:
    """In place; only another name means another endpoint. Of its properties CloudFormation sends these."""
    name = made.wanted["EndpointName"]
    if wanted.get("EndpointName", name) != name:
        return False
    taken = ("EndpointConfigName", "DeploymentConfig", "RetainAllVariantProperties")
    parameters = {key: wanted[key] for key in taken if key in wanted}
    admin("sagemaker").update_endpoint(EndpointName=name, **parameters)
    _in_service(name, wanted["EndpointConfigName"])
    made.wanted = {"EndpointName": name, **wanted}
    return True


def _endpoint() -> Row:
    plain = _row("Endpoint")
    # Both are known to UpdateEndpoint only, or to CreateEndpoint too; the first creation needs neither retained.
    return Row(
        type=plain.type,
        service=plain.service,
        create=plain.create,
        name=plain.name,
        shape=lambda properties: {
            key: properties[key] for key in properties if not key.startswith(("Retain", "Exclude"))
        },
        ref=plain.ref,
        attributes=plain.attributes,
        after=lambda made: _in_service(made.wanted["EndpointName"], made.wanted["EndpointConfigName"]),
        update=_update_endpoint,
        delete=plain.delete,
    )


def _pipelines() -> Row:
    plain = _row("Pipeline", "Name")
    return Row(
        type=plain.type,
        service=plain.service,
        create=plain.create,
        name=plain.name,
        shape=_pipeline,
        ref=plain.ref,
        attributes=plain.attributes,
        update=_update_pipeline,
        delete=lambda made: admin("sagemaker").delete_pipeline(
            PipelineName=made.wanted["PipelineName"], ClientRequestToken="k" * 32
        ),
    )


ROWS = [
    _row("Model"),
    _row("EndpointConfig"),
    _endpoint(),
    _row("NotebookInstance"),
    _row("NotebookInstanceLifecycleConfig"),
    _row("ModelPackageGroup"),
    _pipelines(),
]
