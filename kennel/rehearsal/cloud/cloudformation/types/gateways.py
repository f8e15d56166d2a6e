"""API Gateway v2."""

from __future__ import annotations

from botocore import xform_name  # type: ignore[import-untyped]

from kennel.rehearsal.cloud.clients import admin
from kennel.rehearsal.cloud.cloudformation.types.resource import Made, Row, tag_map


def _child(noun: str, ref: str) -> Row:
    def delete(made: Made) -> None:
        own = {ref: made.physical}
        getattr(admin("apigatewayv2"), xform_name(f"Delete{noun}"))(ApiId=made.wanted["ApiId"], **own)

    return Row(
        type=f"AWS::ApiGatewayV2::{noun}",
        service="apigatewayv2",
        create=f"Create{noun}",
        shape=tag_map,
        ref=lambda made: str(made.answer[ref]),
        attributes={ref: lambda made: str(made.answer[ref])},
        delete=delete,
    )


ROWS = [
    Row(
        type="AWS::ApiGatewayV2::Api",
        service="apigatewayv2",
        create="CreateApi",
        name="Name",
        shape=tag_map,
        ref=lambda made: str(made.answer["ApiId"]),
        attributes={
            "ApiId": lambda made: str(made.answer["ApiId"]),
            "ApiEndpoint": lambda made: str(made.answer["ApiEndpoint"]),
        },
        delete=lambda made: admin("apigatewayv2").delete_api(ApiId=made.physical),
    ),
    _child("Integration", "IntegrationId"),
    _child("Route", "RouteId"),
    _child("Stage", "StageName"),
]
