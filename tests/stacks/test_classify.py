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


def files_of(synth: Synthesized, declared: dict[str, Any]) -> set[str]:
    """Relative paths in the staged asset of a function."""
    folder = synth.folder / f"asset.{Path(declared['Code']['S3Key']).stem}"
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_the_function_runs_the_newest_python_on_arm(synth: Synthesized, stage: str) -> None:
    declared = synth.only(stage, "Classify", FUNCTION)
    assert (declared["Runtime"], declared["Architectures"]) == ("python3.14", ["arm64"])
    assert declared["Handler"] == "classify.handler.handler"
    assert declared["TracingConfig"] == {"Mode": "Active"}


def test_the_asset_holds_the_package_and_nothing_else_of_the_folder(synth: Synthesized, stage: str) -> None:
    files = files_of(synth, synth.only(stage, "Classify", FUNCTION))
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
    variables = synth.only(stage, "Classify", FUNCTION)["Environment"]["Variables"]
    assert set(variables) == {"ENDPOINT_NAME", "ALLOWED_S3_PREFIXES", "TOP_K", "MAX_BYTES"}
    assert variables["ENDPOINT_NAME"] == f"kennel-{stage.lower()}"
    assert text(variables["ALLOWED_S3_PREFIXES"]).endswith(">/photos/")
    assert (variables["TOP_K"], variables["MAX_BYTES"]) == ("5", "6000000")


def test_the_function_stays_outside_the_vpc(synth: Synthesized, stage: str) -> None:
    assert "VpcConfig" not in synth.only(stage, "Classify", FUNCTION)


def test_prod_sets_concurrency_aside_and_dev_does_not(synth: Synthesized) -> None:
    assert synth.only("Prod", "Classify", FUNCTION)["ReservedConcurrentExecutions"] == 100
    assert "ReservedConcurrentExecutions" not in synth.only("Dev", "Classify", FUNCTION)
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
        for _, statement in synth.statements(stage, "Classify")
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
    (statement,) = [each for _, each in synth.statements(stage, "Classify") if each["Action"] == "kms:Decrypt"]
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
    function_ms = synth.only(stage, "Classify", FUNCTION)["Timeout"] * 1000
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
    assert [group["Properties"]["RetentionInDays"] for group in groups] == [days, days]
