"""`kennel preflight` on the synthesized app, against an AWS on loopback; quotas are answers to real clients."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.stub import Stubber  # type: ignore[import-untyped]

from kennel import preflight
from kennel.preflight import Check, examine
from tests.cli.test_command import kennel

QUOTAS = {  # service -> name: code
    "sagemaker": {
        "ml.m5.large for endpoint usage": "L-614B09FD",
        "ml.m5.xlarge for endpoint usage": "L-2F737F8D",
        "ml.m5.xlarge for processing job usage": "L-0307F515",
        "ml.m5.xlarge for training job usage": "L-CCE2AFA6",
        "ml.m5.xlarge for spot training job usage": "L-4CEE6BA6",
        "ml.t3.medium for notebook instance usage": "L-E17566B7",
        "Number of instances across active endpoints": "L-7A3DF611",
        "Maximum number of instances per endpoint": "L-ED8DEE9B",
        "Number of instances across processing jobs": "L-F311B08F",
        "Number of instances across training jobs": "L-00C91CB5",
        "Number of instances across spot training jobs": "L-93958082",
    },
    "codebuild": {"Concurrently running builds for Linux/Medium environment": "L-2DC20C30"},
    "ec2": {"Running On-Demand G and VT instances": "L-DB2E81BA"},
}


class Account:
    """A client of each service: moto's, but for Lambda's settings and the quotas, which are 8 each unless `quotas` has
    the code; None takes one away."""

    def __init__(self) -> None:
        self.unreserved = 1000
        self.quotas: dict[str, int | None] = {}

    def __call__(self, service: str) -> Any:
        client = boto3.client(service)
        if service not in ("lambda", "service-quotas"):
            return client
        stub = Stubber(client)
        if service == "lambda":
            limit = {"ConcurrentExecutions": self.unreserved, "UnreservedConcurrentExecutions": self.unreserved}
            stub.add_response("get_account_settings", {"AccountLimit": limit})
        else:
            for name, codes in QUOTAS.items():
                values = {(quota, code): self.quotas.get(code, 8) for quota, code in codes.items()}
                listed = [
                    {"QuotaName": quota, "QuotaCode": code, "Value": value}
                    for (quota, code), value in values.items()
                    if value is not None
                ]
                defaults = [{**one, "Value": 0.0} for one in listed]
                for operation, found in (
                    ("list_aws_default_service_quotas", defaults),
                    ("list_service_quotas", listed),
                ):
                    stub.add_response(operation, {"Quotas": found}, {"ServiceCode": name})
        stub.activate()
        return client


@pytest.fixture
def account(aws: str) -> Iterator[Account]:
    """A bootstrapped account of many quotas with nothing in it."""
    ssm = boto3.client("ssm")
    ssm.put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String", Overwrite=True)
    yield Account()
    ssm.delete_parameter(Name="/cdk-bootstrap/hnb659fds/version")


@pytest.fixture
def stack(account: Account) -> Iterator[Any]:
    """Makes stacks, which go after the test."""
    cloudformation, made = boto3.client("cloudformation"), list[str]()

    def make(name: str, *, tags: dict[str, str] | None = None, reserved: int = 0, **more: Any) -> None:
        function = {"ReservedConcurrentExecutions": reserved}
        template = {
            "Conditions": {"Never": {"Fn::Equals": ["a", "b"]}},
            "Resources": {
                "B": {"Type": "AWS::S3::Bucket"},
                "F": {"Type": "AWS::Lambda::Function", "Condition": "Never", "Properties": function},
                **more,
            },
        }
        listed = [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
        cloudformation.create_stack(StackName=name, TemplateBody=json.dumps(template), Tags=listed)
        made.append(name)

    yield make
    for name in made:
        cloudformation.delete_stack(StackName=name)


def troubled(checks: list[Check]) -> dict[str, str]:
    return {check.what: check.verdict for check in checks if check.verdict != "ok"}


@pytest.mark.parametrize("stage", ["Dev", "Prod"])
def test_in_an_empty_account_of_many_quotas_nothing_stands_in_the_way(
    assembly: Path, account: Account, stage: str
) -> None:
    assert troubled(examine(stage, assembly, account)) == {}


def test_a_foreign_stack_of_our_name_ends_the_command_with_1_and_the_way_out(
    assembly: Path, account: Account, stack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack("Kennel-Prod-Network")
    monkeypatch.setattr(preflight, "client", account)
    done = kennel("preflight", "--stage", "Prod", "--assembly", assembly)
    assert done.exit_code == 1
    assert "stack Kennel-Prod-Network: A deployment would replace another team's stack" in done.stdout
    assert "stack_prefix" in done.stdout


def test_our_own_stacks_are_no_hindrance(
    assembly: Path, account: Account, stack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack("Kennel-Prod-Network", tags={"kennel:stage": "Prod"})
    monkeypatch.setattr(preflight, "client", account)
    done = kennel("preflight", "--stage", "Prod", "--assembly", assembly)
    assert (done.exit_code, "make deploy STAGE=Prod" in done.stdout) == (0, True)


def test_what_an_earlier_deployment_left_is_in_the_way(assembly: Path, account: Account, stack: Any) -> None:
    sagemaker, logs = boto3.client("sagemaker"), boto3.client("logs")
    role = "arn:aws:iam::123456789012:role/any"
    sagemaker.create_pipeline(
        PipelineName="kennel-prod", PipelineDefinition="{}", RoleArn=role, ClientRequestToken="t" * 32
    )
    logs.create_log_group(logGroupName="/aws/sagemaker/Endpoints/kennel-prod")
    pipeline, log_group = "Pipeline kennel-prod", "LogGroup /aws/sagemaker/Endpoints/kennel-prod"
    try:
        assert troubled(examine("Prod", assembly, account)) == {pipeline: "fails", log_group: "fails"}
        stack("Kennel-Prod-Pipeline", tags={"kennel:stage": "Prod"})  # whose pipeline it is
        assert troubled(examine("Prod", assembly, account)) == {log_group: "fails"}
    finally:
        logs.delete_log_group(logGroupName="/aws/sagemaker/Endpoints/kennel-prod")
        sagemaker.delete_pipeline(PipelineName="kennel-prod", ClientRequestToken="t" * 32)


def test_an_account_that_was_never_bootstrapped_is_told_to(assembly: Path, aws: str) -> None:
    assert troubled(examine("Prod", assembly, Account())) == {"bootstrap stack": "fails"}


CONCURRENCY = "Lambda concurrency to reserve (100 stay unreserved)"


def test_a_new_accounts_concurrency_is_too_little_to_set_some_aside(assembly: Path, account: Account) -> None:
    account.unreserved = 200  # of which 100 stay: Prod wants 101
    assert troubled(examine("Prod", assembly, account)) == {CONCURRENCY: "fails"}
    assert CONCURRENCY not in {check.what for check in examine("Dev", assembly, account)}  # which sets none aside


def test_what_the_stage_has_set_aside_already_is_there_for_its_next_deployment(
    assembly: Path, account: Account, stack: Any
) -> None:
    account.unreserved = 120
    stack("Kennel-Prod-Classify", tags={"kennel:stage": "Prod"}, reserved=100)
    assert troubled(examine("Prod", assembly, account)) == {}


@pytest.mark.parametrize(
    ("code", "value", "what", "verdict"),
    [
        ("L-2F737F8D", 3, "ml.m5.xlarge for endpoint usage", "fails"),  # two instances, twice during a release
        ("L-2F737F8D", 4, "ml.m5.xlarge for endpoint usage", "tight"),  # but 8 where scaling has made them four
        ("L-7A3DF611", 4, "Instances across active endpoints", "tight"),
        ("L-ED8DEE9B", 2, "Instances per endpoint", "fails"),
        ("L-0307F515", 0, "ml.m5.xlarge for processing job usage", "fails"),
        ("L-CCE2AFA6", 0, "ml.m5.xlarge for training job usage", "fails"),
        ("L-00C91CB5", 0, "Instances across all training jobs", "fails"),
        ("L-4CEE6BA6", 0, "ml.m5.xlarge for spot training job usage", "tight"),  # spot runs only
        ("L-E17566B7", 0, "ml.t3.medium for notebook instance usage", "fails"),
        ("L-2DC20C30", 0, "CodeBuild: concurrent builds on Linux/Medium", "fails"),
        ("L-DB2E81BA", 0, "EC2: vCPUs of G and VT instances (g4dn.xlarge)", "tight"),  # deploying needs none
        ("L-2F737F8D", None, "ml.m5.xlarge for endpoint usage", "unknown"),
    ],
)
def test_each_quota_is_held_against_what_the_stage_needs(
    assembly: Path, account: Account, code: str, value: int | None, what: str, verdict: str
) -> None:
    account.quotas[code] = value
    assert troubled(examine("Prod", assembly, account)) == {what: verdict}


def test_without_a_synthesized_app_it_says_to_make_one(tmp_path: Path, aws: str) -> None:
    done = kennel("preflight", "--assembly", tmp_path)
    assert (done.exit_code, "run `make synth` first" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "ok"),
        ({"FunctionVersion": {"Fn::GetAtt": ["Before", "Version"]}}, "ok"),
        ({"ProvisionedConcurrencyConfig": {"ProvisionedConcurrentExecutions": 9}}, "ok"),
        (
            {
                "FunctionVersion": {"Fn::GetAtt": ["Before", "Version"]},
                "ProvisionedConcurrencyConfig": {"ProvisionedConcurrentExecutions": 9},
            },
            "fails",
        ),
    ],
)
def test_the_functions_code_and_its_provisioned_concurrency_do_not_change_at_once(
    assembly: Path, account: Account, stack: Any, changes: dict[str, Any], verdict: str
) -> None:
    (file,) = assembly.rglob("*ProdClassify*.template.json")
    resources = json.loads(file.read_text())["Resources"]
    ((id_, alias),) = [(id_, one) for id_, one in resources.items() if one["Type"] == "AWS::Lambda::Alias"]
    deployed = {"Type": alias["Type"], "Condition": "Never", "Properties": {**alias["Properties"], **changes}}
    stack("Kennel-Prod-Classify", tags={"kennel:stage": "Prod"}, reserved=100, **{id_: deployed})
    [check] = [one for one in examine("Prod", assembly, account) if one.what.startswith("alias of")]
    assert check.verdict == verdict
    assert "then the concurrency by itself" in check.advice
