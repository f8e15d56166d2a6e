"""POST /classify for callers who sign their requests with IAM credentials."""

import json

from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.config import StageSettings

_ACCESS_LOG = {
    name: f"$context.{name}"
    for name in ("requestId", "requestTime", "status", "responseLatency", "integrationErrorMessage")
} | {"caller": "$context.identity.userArn", "address": "$context.identity.sourceIp"}


class ClassifyApi(Construct):
    """An HTTP API with one route to the function's alias, throttled and logged."""

    def __init__(self, scope: Construct, id_: str, *, settings: StageSettings, alias: lambda_.Alias) -> None:
        super().__init__(scope, id_)
        self.api = apigateway.HttpApi(
            self, "Http", create_default_stage=False, default_authorizer=authorizers.HttpIamAuthorizer()
        )
        self.api.add_routes(
            path="/classify",
            methods=[apigateway.HttpMethod.POST],
            # No timeout is given: the service's own 30 s is the longest, and leaves the function's 29 s time to end.
            integration=integrations.HttpLambdaIntegration("Live", alias),
        )
        log_group = logs.LogGroup(
            self, "AccessLogs", retention=settings.log_retention, removal_policy=settings.removal_policy
        )
        limits = settings.classify
        apigateway.CfnStage(
            self,
            "Stage",
            api_id=self.api.api_id,
            stage_name="$default",
            auto_deploy=True,
            access_log_settings=apigateway.CfnStage.AccessLogSettingsProperty(
                destination_arn=log_group.log_group_arn, format=json.dumps(_ACCESS_LOG)
            ),
            default_route_settings=apigateway.CfnStage.RouteSettingsProperty(
                throttling_rate_limit=limits.requests_per_second, throttling_burst_limit=limits.request_burst
            ),
        )
