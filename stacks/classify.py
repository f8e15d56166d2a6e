"""The Lambda that answers callers, and the HTTP API in front of it."""

import json

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_codedeploy as codedeploy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.function import PackageFunction
from stacks.hosting.stack import HostingStack
from stacks.monitoring import alarm, where_frequent
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
        if limits.canary_minutes:
            FunctionCanary(self, "Canary", settings=settings, alias=self.alias, data=data, hosting=hosting)
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


_CANARIES = {
    5: codedeploy.LambdaDeploymentConfig.CANARY_10_PERCENT_5_MINUTES,
    10: codedeploy.LambdaDeploymentConfig.CANARY_10_PERCENT_10_MINUTES,
    15: codedeploy.LambdaDeploymentConfig.CANARY_10_PERCENT_15_MINUTES,
    30: codedeploy.LambdaDeploymentConfig.CANARY_10_PERCENT_30_MINUTES,
}
_LEAST_ERRORS = 3  # fewer in a minute do not tell a bad version from bad luck
_ERROR_PERCENT = 5  # of a minute's calls


class FunctionCanary(Construct):
    """A deployment group for the alias: a function asks the new version first, then a tenth of the calls do.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-attribute-updatepolicy.html
    """

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        settings: StageSettings,
        alias: lambda_.Alias,
        data: DataStack,
        hosting: HostingStack,
    ) -> None:
        super().__init__(scope, id_)
        limits = settings.classify
        hook = self._hook(settings, alias.version, hosting)
        hosting.grant_probe(hook.role, data)
        alarms = _rollback_alarms(alias, limits.rollback_duration_milliseconds)
        role = _codedeploy_role(self, alias, hook.function, alarms)
        codedeploy.LambdaDeploymentGroup(
            self,
            "Group",
            alias=alias,
            # Without CDK's additions: AWS's managed policy may move the traffic of every function of the account.
            role=role.without_policy_updates(),
            deployment_config=_CANARIES[limits.canary_minutes or 0],
            alarms=alarms,
            auto_rollback=codedeploy.AutoRollbackConfig(failed_deployment=True, deployment_in_alarm=True),
            pre_hook=hook.function,
        )
        alias.node.add_dependency(role)  # whose policy must be there when traffic shifts

    def _hook(self, settings: StageSettings, version: lambda_.IVersion, hosting: HostingStack) -> PackageFunction:
        hook = PackageFunction(
            self,
            "PreTraffic",
            package="probe",
            module="pre_traffic",
            settings=settings,
            environment={
                "NEW_VERSION": version.function_arn,
                "HOSTING_STACK": hosting.stack_name,
                "ENDPOINT_NAME": hosting.endpoint_name,
                "LONGEST_MILLISECONDS": str(settings.classify.rollback_duration_milliseconds),
            },
            memory_mib=256,
            timeout_seconds=900,  # Lambda's longest; CodeDeploy waits an hour
            reserved_concurrency=None,
        )
        allow(hook.role, ["lambda:InvokeFunction"], [version.function_arn])
        return hook


def _codedeploy_role(
    scope: Construct, alias: lambda_.Alias, hook: lambda_.Function, alarms: list[cloudwatch.Alarm]
) -> iam.Role:
    account = {"StringEquals": {"aws:SourceAccount": cdk.Aws.ACCOUNT_ID}}
    role = iam.Role(scope, "Role", assumed_by=iam.ServicePrincipal("codedeploy.amazonaws.com", conditions=account))
    function = alias.version.lambda_.function_arn
    # The last of them is asked of the alias, the others of the function.
    actions = ["lambda:GetAlias", "lambda:UpdateAlias", "lambda:GetProvisionedConcurrencyConfig"]
    allow(role, actions, [function, f"{function}:{alias.alias_name}"])
    allow(role, ["lambda:InvokeFunction"], [hook.function_arn])
    allow(role, ["cloudwatch:DescribeAlarms"], [each.alarm_arn for each in alarms])
    return role


def _rollback_alarms(alias: lambda_.Alias, milliseconds: int) -> list[cloudwatch.Alarm]:
    """Return the alarms on what the new version alone does with the calls of the alias."""
    asked = _metric_of_version(alias, "Invocations", "Sum")
    failed_percent = cloudwatch.MathExpression(
        expression=f"IF(FILL(failed, 0) >= {_LEAST_ERRORS}, 100 * failed / asked, 0 * asked)",
        label="calls that the new version failed (%)",
        using_metrics={"asked": asked, "failed": _metric_of_version(alias, "Errors", "Sum")},
        period=cdk.Duration.minutes(1),
    )
    slow = where_frequent(_metric_of_version(alias, "Duration", "p95"), asked, "duration, p95 (ms)")
    put_back = "CodeDeploy puts the version before back."
    table: list[tuple[str, cloudwatch.IMetric, float, int, str]] = [
        ("RollbackErrors", failed_percent, _ERROR_PERCENT, 1, "crashes or runs out of time"),
        ("RollbackDuration", slow, milliseconds, 2, "is too slow"),
    ]
    return [
        alarm(
            cdk.Stack.of(alias),
            id_,
            metric,
            at=at,
            minutes=minutes,
            means=f"The function's new version {fault}: {put_back}",
        )
        for id_, metric, at, minutes, fault in table
    ]


def _metric_of_version(alias: lambda_.Alias, name: str, statistic: str) -> cloudwatch.Metric:
    function = alias.version.lambda_.function_name
    return cloudwatch.Metric(
        namespace="AWS/Lambda",
        metric_name=name,
        dimensions_map={
            "FunctionName": function,
            "Resource": f"{function}:{alias.alias_name}",
            "ExecutedVersion": alias.version.version,
        },
        statistic=statistic,
        period=cdk.Duration.minutes(1),
    )


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
