"""The Lambda that answers callers, and the HTTP API in front of it."""

import json

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.function import PackageFunction
from stacks.hosting.stack import HostingStack
from stacks.permissions import acknowledge, allow, any_object, via_s3

_PHOTOS = "photos/"  # the part of the data bucket whose pictures callers may name
_MAX_PAYLOAD_BYTES = 6_000_000  # what the endpoint takes


class ClassifyStack(cdk.Stack):
    """The function, its alias `live` and its API. It runs outside the VPC, because it fetches public addresses."""

    def __init__(
        self, scope: Construct, id_: str, *, settings: StageSettings, data: DataStack, hosting: HostingStack
    ) -> None:
        super().__init__(scope, id_, description=f"{settings.name}: the function and the API that callers ask")
        limits = settings.classify
        packaged = PackageFunction(
            self,
            "Classify",
            package="classify",
            settings=settings,
            environment={
                "ENDPOINT_NAME": hosting.endpoint_name,
                "ALLOWED_S3_PREFIXES": f"{data.bucket.bucket_name}/{_PHOTOS}",
                "TOP_K": "5",
                "MAX_BYTES": str(_MAX_PAYLOAD_BYTES),
            },
            memory_mib=limits.memory_mib,
            timeout_seconds=limits.timeout_seconds,
            reserved_concurrency=limits.reserved_concurrency,
        )
        self.function = packaged.function
        hosting.grant_invoke(packaged.role)
        _allow_photos(packaged.role, data)
        self.alias = lambda_.Alias(
            self,
            "Live",
            alias_name="live",
            version=self.function.current_version,
            provisioned_concurrent_executions=limits.provisioned_concurrency,
        )
        self.api = ClassifyApi(self, "Api", settings=settings, alias=self.alias).api
        cdk.CfnOutput(self, "FunctionName", value=self.function.function_name)
        cdk.CfnOutput(self, "FunctionAliasArn", value=self.alias.function_arn)
        cdk.CfnOutput(self, "ApiUrl", value=f"{self.api.api_endpoint}/classify")

    def grant_invoke(self, role: iam.Role) -> None:
        """Allow `role` to invoke the function through its alias."""
        allow(role, ["lambda:InvokeFunction"], [self.alias.function_arn])


def _allow_photos(role: iam.Role, data: DataStack) -> None:
    allow(role, ["s3:GetObject"], [data.bucket.arn_for_objects(f"{_PHOTOS}*")])
    allow(role, ["kms:Decrypt"], [data.key.key_arn], via_s3())
    acknowledge(role, "Pictures are named by callers; the prefix holds nothing else.", any_object(data, _PHOTOS))


_ACCESS_LOG = {
    name: f"$context.{name}"
    for name in ("requestId", "requestTime", "status", "responseLatency", "integrationErrorMessage")
} | {"error": "$context.error.message", "caller": "$context.identity.userArn", "address": "$context.identity.sourceIp"}


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
