"""The function, its alias and its API: what they run, what they may do, who may call."""

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

from stacks import function
from stacks.config import DEV
from tests.stacks.synthesized import Synthesized, text

FUNCTION = "AWS::Lambda::Function"


def classify(synth: Synthesized, stage: str) -> dict[str, Any]:
    """The properties of the function that answers callers."""
    found = synth.resources(stage, "Classify", FUNCTION)
    ((_, one),) = [(id_, one) for id_, one in found.items() if id_.startswith("ClassifyFunction")]
    properties: dict[str, Any] = one["Properties"]
    return properties


def files_of(synth: Synthesized, declared: dict[str, Any]) -> set[str]:
    """Relative paths in the staged asset of a function."""
    folder = synth.folder / f"asset.{Path(declared['Code']['S3Key']).stem}"
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_the_function_runs_the_newest_python_on_arm(synth: Synthesized, stage: str) -> None:
    declared = classify(synth, stage)
    assert (declared["Runtime"], declared["Architectures"]) == ("python3.14", ["arm64"])
    assert declared["Handler"] == "classify.handler.handler"
    assert declared["TracingConfig"] == {"Mode": "Active"}


def test_the_asset_holds_the_package_and_nothing_else_of_the_folder(synth: Synthesized, stage: str) -> None:
    files = files_of(synth, classify(synth, stage))
    assert "classify/handler.py" in files
    assert {file.split("/")[0] for file in files} == {"classify"}


def test_compiled_files_stay_out_of_the_asset_or_each_test_run_would_make_a_new_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lambda" / "classify"
    for file in ("handler.py", "__pycache__/handler.pyc", "deeper/__pycache__/any.pyc", "deeper/any.py"):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).touch()
    monkeypatch.setattr(function, "SOURCES", tmp_path / "lambda")
    app = cdk.App(outdir=str(tmp_path / "cdk.out"))
    function.PackageFunction(
        cdk.Stack(app, "Any"),
        "Any",
        package="classify",
        settings=DEV,
        environment={},
        memory_mib=128,
        timeout_seconds=3,
        reserved_concurrency=None,
    )
    app.synth()
    staged = {file.name for file in (tmp_path / "cdk.out").glob("asset.*/classify/**/*") if file.is_file()}
    assert staged == {"handler.py", "any.py"}


def test_the_environment_is_the_contract(synth: Synthesized, stage: str) -> None:
    variables = classify(synth, stage)["Environment"]["Variables"]
    assert set(variables) == {"ENDPOINT_NAME", "ALLOWED_S3_PREFIXES", "TOP_K", "MAX_BYTES"}
    assert variables["ENDPOINT_NAME"] == f"kennel-{stage.lower()}"
    assert text(variables["ALLOWED_S3_PREFIXES"]).endswith(">/photos/")
    assert (variables["TOP_K"], variables["MAX_BYTES"]) == ("5", "6000000")


def test_the_function_stays_outside_the_vpc(synth: Synthesized, stage: str) -> None:
    assert "VpcConfig" not in classify(synth, stage)


def test_prod_sets_concurrency_aside_and_dev_does_not(synth: Synthesized) -> None:
    assert classify(synth, "Prod")["ReservedConcurrentExecutions"] == 100
    assert "ReservedConcurrentExecutions" not in classify(synth, "Dev")
    live = synth.only("Prod", "Classify", "AWS::Lambda::Alias")
    assert live["ProvisionedConcurrencyConfig"] == {"ProvisionedConcurrentExecutions": 3}
    assert "ProvisionedConcurrencyConfig" not in synth.only("Dev", "Classify", "AWS::Lambda::Alias")


def test_the_alias_live_points_at_the_current_version(synth: Synthesized, stage: str) -> None:
    live = synth.only(stage, "Classify", "AWS::Lambda::Alias")
    (version,) = synth.resources(stage, "Classify", "AWS::Lambda::Version")
    assert live["Name"] == "live"
    assert live["FunctionVersion"] == {"Fn::GetAtt": [version, "Version"]}


def test_the_role_may_do_five_things_and_no_more(synth: Synthesized, stage: str) -> None:
    allowed = {
        action: text(statement["Resource"])
        for role, statement in synth.statements(stage, "Classify")
        if role.startswith("ClassifyRole")
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    endpoint = f"arn:<AWS::Partition>:sagemaker:<AWS::Region>:<AWS::AccountId>:endpoint/kennel-{stage.lower()}"
    assert allowed["sagemaker:InvokeEndpoint"] == endpoint
    assert allowed["s3:GetObject"].endswith(">/photos/*")
    assert allowed["kms:Decrypt"].startswith(f"<Kennel-{stage}-Data.")
    assert [action for action, resource in allowed.items() if resource == "*"] == [
        "xray:PutTelemetryRecords",
        "xray:PutTraceSegments",
    ]
    logs = {"logs:CreateLogStream", "logs:PutLogEvents"}
    xray = {"xray:PutTelemetryRecords", "xray:PutTraceSegments"}
    assert set(allowed) == {"sagemaker:InvokeEndpoint", "s3:GetObject", "kms:Decrypt"} | logs | xray


def test_the_key_serves_the_function_only_through_s3(synth: Synthesized, stage: str) -> None:
    (statement,) = [
        each
        for role, each in synth.statements(stage, "Classify")
        if role.startswith("ClassifyRole") and each["Action"] == "kms:Decrypt"
    ]
    via = statement["Condition"]["StringEquals"]["kms:ViaService"]
    assert text(via) == "s3.<AWS::Region>.amazonaws.com"


def test_the_api_has_one_route_and_it_wants_iam_credentials(synth: Synthesized, stage: str) -> None:
    route = synth.only(stage, "Classify", "AWS::ApiGatewayV2::Route")
    assert route["RouteKey"] == "POST /classify"
    assert route["AuthorizationType"] == "AWS_IAM"


def test_the_api_calls_the_alias_with_the_payload_that_the_handler_reads(synth: Synthesized, stage: str) -> None:
    integration = synth.only(stage, "Classify", "AWS::ApiGatewayV2::Integration")
    (live,) = synth.resources(stage, "Classify", "AWS::Lambda::Alias")
    assert integration["IntegrationUri"] == {"Ref": live}
    assert integration["PayloadFormatVersion"] == "2.0"


def test_the_function_ends_before_the_api_gives_up(synth: Synthesized, stage: str) -> None:
    function_ms = classify(synth, stage)["Timeout"] * 1000
    integration = synth.only(stage, "Classify", "AWS::ApiGatewayV2::Integration")
    assert function_ms < integration.get("TimeoutInMillis", 30_000)  # the service's default and maximum


def test_the_api_is_throttled_and_logs_each_call_as_one_json_line(synth: Synthesized, stage: str) -> None:
    api_stage = synth.only(stage, "Classify", "AWS::ApiGatewayV2::Stage")
    limits = api_stage["DefaultRouteSettings"]
    line = json.loads(api_stage["AccessLogSettings"]["Format"])
    assert (limits["ThrottlingRateLimit"], limits["ThrottlingBurstLimit"]) == (100, 200)
    assert {"requestId", "status", "caller"} <= set(line)
    assert line["error"] == "$context.error.message"  # why a signature was refused


@pytest.mark.parametrize(("stage", "days"), [("Dev", 7), ("Prod", 365)])
def test_every_log_group_has_a_retention(synth: Synthesized, stage: str, days: int) -> None:
    groups = synth.resources(stage, "Classify", "AWS::Logs::LogGroup").values()
    assert {group["Properties"]["RetentionInDays"] for group in groups} == {days}


# ---- the canary of a new version
GROUP, ALIAS, ALARM = "AWS::CodeDeploy::DeploymentGroup", "AWS::Lambda::Alias", "AWS::CloudWatch::Alarm"


def test_dev_gives_a_new_version_all_calls_at_once(synth: Synthesized) -> None:
    (alias,) = synth.resources("Dev", "Classify", ALIAS).values()
    assert "UpdatePolicy" not in alias
    assert not synth.resources("Dev", "Classify", GROUP)


def test_prod_shifts_a_tenth_of_the_calls_first_once_the_hook_agrees(synth: Synthesized) -> None:
    ((group_id, group),) = synth.resources("Prod", "Classify", GROUP).items()
    (application,) = synth.resources("Prod", "Classify", "AWS::CodeDeploy::Application")
    (alias,) = synth.resources("Prod", "Classify", ALIAS).values()
    (hook,) = [id_ for id_ in synth.resources("Prod", "Classify", FUNCTION) if "PreTraffic" in id_]
    assert alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"] == {
        "ApplicationName": {"Ref": application},
        "BeforeAllowTrafficHook": {"Ref": hook},
        "DeploymentGroupName": {"Ref": group_id},
    }
    declared = group["Properties"]
    assert declared["DeploymentConfigName"] == "CodeDeployDefault.LambdaCanary10Percent10Minutes"
    assert declared["AutoRollbackConfiguration"] == {
        "Enabled": True,
        "Events": ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM"],
    }
    alarms = synth.resources("Prod", "Classify", ALARM)
    assert declared["AlarmConfiguration"] == {"Alarms": [{"Name": {"Ref": id_}} for id_ in alarms], "Enabled": True}


def test_the_alarms_see_the_new_version_alone(synth: Synthesized) -> None:
    (version,) = synth.resources("Prod", "Classify", "AWS::Lambda::Version")
    alarms = [one["Properties"] for one in synth.resources("Prod", "Classify", ALARM).values()]
    assert len(alarms) == 2
    for alarm in alarms:
        for query in alarm["Metrics"]:
            if "MetricStat" in query:
                metric = query["MetricStat"]["Metric"]
                named = {one["Name"]: one["Value"] for one in metric["Dimensions"]}
                assert metric["Namespace"] == "AWS/Lambda"
                assert named["ExecutedVersion"] == {"Fn::GetAtt": [version, "Version"]}
                assert text(named["Resource"]) == f"{text(named['FunctionName'])}:live"
    errors, slow = sorted(alarms, key=lambda one: float(one["Threshold"]))
    assert (errors["Threshold"], slow["Threshold"]) == (5, 4000)  # percent and milliseconds
    assert (errors["EvaluationPeriods"], slow["EvaluationPeriods"]) == (1, 2)


def test_the_hook_asks_the_version_that_is_to_come(synth: Synthesized) -> None:
    (version,) = synth.resources("Prod", "Classify", "AWS::Lambda::Version")
    (hook,) = [
        one["Properties"] for id_, one in synth.resources("Prod", "Classify", FUNCTION).items() if "PreTraffic" in id_
    ]
    assert hook["Handler"] == "probe.pre_traffic.handler"
    assert hook["Environment"]["Variables"] == {
        "NEW_VERSION": {"Ref": version},
        "HOSTING_STACK": "Kennel-Prod-Hosting",
        "ENDPOINT_NAME": "kennel-prod",
        "LONGEST_MILLISECONDS": "4000",
    }


def allowed(synth: Synthesized, role: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for id_, each in synth.statements("Prod", "Classify"):
        if role in id_:
            resources = each["Resource"] if isinstance(each["Resource"], list) else [each["Resource"]]
            for action in [each["Action"]] if isinstance(each["Action"], str) else each["Action"]:
                found[action] = [text(resource) for resource in resources]
    return found


def test_codedeploys_role_moves_this_alias_asks_this_hook_and_sees_these_alarms(synth: Synthesized) -> None:
    found = allowed(synth, "CanaryRole")
    assert set(found) == {
        "cloudwatch:DescribeAlarms",
        "lambda:GetAlias",
        "lambda:GetProvisionedConcurrencyConfig",
        "lambda:InvokeFunction",
        "lambda:UpdateAlias",
    }
    function, alias = found["lambda:UpdateAlias"]
    assert (function[:17], alias) == ("<ClassifyFunction", f"{function}:live")
    assert found["lambda:InvokeFunction"][0].startswith("<CanaryPreTraffic")
    assert [arn.startswith("<Rollback") for arn in found["cloudwatch:DescribeAlarms"]] == [True, True]
    (role,) = [one for id_, one in synth.resources("Prod", "Classify", "AWS::IAM::Role").items() if "CanaryRole" in id_]
    (statement,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "codedeploy.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_traffic_shifts_only_once_codedeploys_role_has_its_policy(synth: Synthesized) -> None:
    (alias,) = synth.resources("Prod", "Classify", ALIAS).values()
    assert any(one.startswith("CanaryRoleDefaultPolicy") for one in alias["DependsOn"])


def test_the_hook_invokes_the_new_version_and_reports_on_one_deployment_group(synth: Synthesized) -> None:
    found = allowed(synth, "CanaryPreTraffic")
    (version,) = synth.resources("Prod", "Classify", "AWS::Lambda::Version")
    (group,) = synth.resources("Prod", "Classify", GROUP)
    assert found["lambda:InvokeFunction"] == [f"<{version}>"]
    (reported,) = found["codedeploy:PutLifecycleEventHookExecutionStatus"]
    assert reported.endswith(f"/<{group}>")
