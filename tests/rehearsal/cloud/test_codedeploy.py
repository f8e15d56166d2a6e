"""A function's new version: the hook's word, a tenth of the alias's calls, alarms on that version, and back."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from kennel.rehearsal.interfaces import FunctionAnswer, FunctionCall
from tests.rehearsal.cloud.world import REGION_ARN, World

CRASH, SOUND = FunctionAnswer(b"{}", "Unhandled", ""), FunctionAnswer(b"{}", None, "REPORT\tDuration: 40.00 ms\t")
SLOW = FunctionAnswer(b"{}", None, "REPORT\tDuration: 9000.00 ms\t")
ROLE: dict[str, Any] = {
    "Effect": "Allow",
    "Action": ["lambda:GetAlias", "lambda:UpdateAlias", "lambda:InvokeFunction", "cloudwatch:DescribeAlarms"],
    "Resource": "*",
}
REPORTS: dict[str, Any] = {**ROLE, "Action": "codedeploy:PutLifecycleEventHookExecutionStatus"}


class Calls:
    """Calls the alias of `stack` 60 times in each simulated minute; versions in `bad` answer as it says."""

    def __init__(self, world: World) -> None:
        self.world, self.stack, self.names = world, "", itertools.count()
        self.bad: dict[str, FunctionAnswer] = {}
        self.hook: str | None = "Succeeded"
        self.versions: Counter[str] = Counter()
        world.cloud.time.during.append(self.minute)
        world.function = self.answer

    def minute(self) -> None:
        for _ in range(60 if self.stack else 0):
            name = f"arn:aws:lambda:{REGION_ARN}:function:{self.stack}:live"
            self.world.cloud.client("lambda").invoke(FunctionName=name)

    def answer(self, call: FunctionCall) -> FunctionAnswer:
        if ":hook-" in call.arn:
            event = json.loads(call.payload)
            said = {"deploymentId": event["DeploymentId"], "status": self.hook}
            said["lifecycleEventHookExecutionId"] = event["LifecycleEventHookExecutionId"]
            if self.hook:
                report = self.world.cloud.client("codedeploy", call.role_arn)
                report.put_lifecycle_event_hook_execution_status(**said)
            return SOUND
        self.versions[call.version] += 1
        return self.bad.get(call.version, SOUND)


@pytest.fixture(scope="module")
def calls(empty_world: World) -> Calls:
    empty_world.role("codedeploy", ROLE)
    empty_world.role("blind", {**ROLE, "Action": ROLE["Action"][:3]})
    empty_world.role("hook", REPORTS)
    empty_world.role("function")
    return Calls(empty_world)


@pytest.fixture(autouse=True)
def sound(calls: Calls) -> Iterator[None]:
    yield
    calls.bad.clear()
    calls.stack, calls.hook = "", "Succeeded"


def role(name: str) -> str:
    return f"arn:aws:iam::123456789012:role/{name}"


def template(name: str, number: int, *, by: str = "codedeploy", provisioned: int = 3) -> dict[str, Any]:
    """A stack of a function in its version `number`, whose alias CodeDeploy shifts."""

    def function(suffix: str, own: str) -> dict[str, Any]:
        code = {"ZipFile": f"# {number}"}
        about = {"FunctionName": suffix, "Handler": "index.handler", "Runtime": "python3.14", "Role": role(own)}
        return {"Type": "AWS::Lambda::Function", "Properties": {**about, "Code": code}}

    version = f"Version{number}"
    executed = {"Fn::GetAtt": [version, "Version"]}
    named: dict[str, Any] = {"FunctionName": name, "Resource": f"{name}:live", "ExecutedVersion": executed}
    dimensions = [{"Name": key, "Value": value} for key, value in named.items()]

    def alarm(metric: str, threshold: float, **statistic: str) -> dict[str, Any]:
        about = {"Namespace": "AWS/Lambda", "MetricName": metric, "Dimensions": dimensions, "Period": 60}
        limits = {"EvaluationPeriods": 1, "TreatMissingData": "notBreaching", "Threshold": threshold}
        compare = {"ComparisonOperator": "GreaterThanOrEqualToThreshold"}
        return {"Type": "AWS::CloudWatch::Alarm", "Properties": {**about, **limits, **compare, **statistic}}

    alarms = {"Errors": alarm("Errors", 3, Statistic="Sum"), "Slow": alarm("Duration", 4000, ExtendedStatistic="p95")}
    group = {
        "ApplicationName": {"Ref": "Application"},
        "ServiceRoleArn": role(by),
        "DeploymentConfigName": "CodeDeployDefault.LambdaCanary10Percent5Minutes",
        "AlarmConfiguration": {"Enabled": True, "Alarms": [{"Name": {"Ref": one}} for one in alarms]},
        "AutoRollbackConfiguration": {"Enabled": True, "Events": ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM"]},
    }
    policy = {
        "ApplicationName": {"Ref": "Application"},
        "DeploymentGroupName": {"Ref": "Group"},
        "BeforeAllowTrafficHook": {"Ref": "Hook"},
    }
    alias = {
        "FunctionName": {"Ref": "Function"},
        "Name": "live",
        "FunctionVersion": {"Fn::GetAtt": [version, "Version"]},
    }
    return {
        "Resources": {
            "Live": {  # first, so that only the references of its policy put it after the group
                "Type": "AWS::Lambda::Alias",
                "Properties": {
                    **alias,
                    "ProvisionedConcurrencyConfig": {"ProvisionedConcurrentExecutions": provisioned},
                },
                "UpdatePolicy": {"CodeDeployLambdaAliasUpdate": policy},
            },
            "Function": function(name, "function"),
            "Hook": function(f"hook-{name}", "hook"),
            version: {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Function"}}},
            "Application": {"Type": "AWS::CodeDeploy::Application", "Properties": {"ComputePlatform": "Lambda"}},
            "Group": {"Type": "AWS::CodeDeploy::DeploymentGroup", "Properties": group},
            **alarms,
        }
    }


def deployed(calls: Calls, **how: Any) -> str:
    """Create the stack with version 1 and return its name; its alias is called from now on."""
    name = f"f{next(calls.names)}"
    assert calls.world.create(name, template(name, 1, **how))["StackStatus"] == "CREATE_COMPLETE"
    calls.stack = name
    calls.versions.clear()
    return name


def live(calls: Calls, name: str) -> tuple[str, Any]:
    found = calls.world.cloud.client("lambda").get_alias(FunctionName=name, Name="live")
    return found["FunctionVersion"], (found.get("RoutingConfig") or {}).get("AdditionalVersionWeights", {})


def test_a_good_version_gets_a_tenth_for_the_canarys_minutes_and_then_all(calls: Calls) -> None:
    name = deployed(calls)
    minute = calls.world.cloud.time.minute
    assert calls.world.update(name, template(name, 2))["StackStatus"] == "UPDATE_COMPLETE"
    assert calls.world.cloud.time.minute - minute == 5
    assert calls.versions == {"1": 270, "2": 30}
    assert live(calls, name) == ("2", {})


@pytest.mark.parametrize("answer", [CRASH, SLOW], ids=["crash", "slow"])
def test_a_bad_version_goes_in_its_first_minute_and_the_one_before_stays(calls: Calls, answer: FunctionAnswer) -> None:
    name = deployed(calls)
    calls.bad["2"] = answer
    stack = calls.world.update(name, template(name, 2))
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "Alarms of the group" in stack["StackStatusReason"]
    assert calls.versions == {"1": 54, "2": 6}
    assert live(calls, name) == ("1", {})


def test_a_bad_old_version_does_not_stop_the_one_that_mends_it(calls: Calls) -> None:
    name = deployed(calls)
    calls.bad["1"] = CRASH
    assert calls.world.update(name, template(name, 2))["StackStatus"] == "UPDATE_COMPLETE"


@pytest.mark.parametrize(("said", "reason"), [("Failed", "said Failed"), (None, "said nothing")])
def test_a_version_that_the_hook_refuses_gets_no_call(calls: Calls, said: str | None, reason: str) -> None:
    name = deployed(calls)
    calls.hook = said
    stack = calls.world.update(name, template(name, 2))
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert reason in stack["StackStatusReason"]
    assert (calls.versions["2"], live(calls, name)) == (0, ("1", {}))


def test_a_role_that_may_not_see_the_alarms_shifts_nothing(calls: Calls) -> None:
    name = deployed(calls, by="blind")
    stack = calls.world.update(name, template(name, 2, by="blind"))
    assert "not authorized to perform: cloudwatch:DescribeAlarms" in stack["StackStatusReason"]
    assert live(calls, name) == ("1", {})


def test_code_and_provisioned_concurrency_at_once_are_refused_as_by_lambda(calls: Calls) -> None:
    name = deployed(calls)
    stack = calls.world.update(name, template(name, 2, provisioned=5))
    assert "Alias with weights can not be used with Provisioned Concurrency" in stack["StackStatusReason"]
    assert calls.world.update(name, template(name, 1, provisioned=5))["StackStatus"] == "UPDATE_COMPLETE"


def test_with_the_stack_application_and_group_go_too(calls: Calls) -> None:
    name = deployed(calls)
    calls.stack = ""
    codedeploy = calls.world.cloud.client("codedeploy")
    before = len(codedeploy.list_applications()["applications"])
    calls.world.cloud.client("cloudformation").delete_stack(StackName=name)
    assert len(codedeploy.list_applications()["applications"]) == before - 1
