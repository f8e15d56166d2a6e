"""One package of lambda/ as a function: python3.14 on arm64, own role, own log group, traced."""

from collections.abc import Mapping
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.config import StageSettings
from stacks.permissions import acknowledge, wildcard

SOURCES = Path(__file__).parents[1] / "lambda"


class PackageFunction(Construct):
    """A function that runs `<package>.<module>.handler`; its asset is the folder `<package>/` of lambda/ alone."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        package: str,
        settings: StageSettings,
        environment: Mapping[str, str],
        memory_mib: int,
        timeout_seconds: int,
        reserved_concurrency: int | None,
        module: str = "handler",
    ) -> None:
        super().__init__(scope, id_)
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        self.role = role
        self.log_group = log_group = logs.LogGroup(
            self, "Logs", retention=settings.log_retention, removal_policy=settings.removal_policy
        )
        # The role is ours, so CDK attaches no managed policy; these two actions are all that logging needs.
        log_group.grant_write(role)
        # Compiled files are left out: running the tests writes them, and the function's version must not follow.
        exclude = ["*", f"!{package}", f"!{package}/**", "**/__pycache__"]
        self.function = lambda_.Function(
            self,
            "Function",
            runtime=lambda_.Runtime.PYTHON_3_14,
            architecture=lambda_.Architecture.ARM_64,
            handler=f"{package}.{module}.handler",
            code=lambda_.Code.from_asset(str(SOURCES), exclude=exclude, ignore_mode=cdk.IgnoreMode.GIT),
            role=role,
            log_group=log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            tracing=lambda_.Tracing.ACTIVE,
            environment=environment,
            memory_size=memory_mib,
            timeout=cdk.Duration.seconds(timeout_seconds),
            reserved_concurrent_executions=reserved_concurrency,
        )
        acknowledge(role, "X-Ray's two actions know no resource; nothing else of this role names '*'.", wildcard("*"))
