"""An endpoint's update in simulated time: canary, bake, alarms on the new fleet; and CloudFormation's own triggers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from moto.events.models import EventsBackend

from kennel.rehearsal.cloud.cloudformation.types.sagemaker import HANDLER
from kennel.rehearsal.interfaces import EndpointAnswer, EndpointCall
from tests.rehearsal.cloud.world import World, eventually, refusal

START = 3  # simulated minutes until a new fleet is healthy
SEE_ALARMS = {"Effect": "Allow", "Action": "cloudwatch:DescribeAlarms", "Resource": "*"}
CANARY = {
    "Type": "CANARY",
    "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50},
    "WaitIntervalInSeconds": 180,
}
ALL = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
LINEAR = {
    "Type": "LINEAR",
    "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 25},
    "WaitIntervalInSeconds": 60,
}


class Fleets:
    """Answers by the shares that were last set, with a status for each model; asks itself each simulated minute."""

    def __init__(self, world: World, requests: int = 10) -> None:
        self.world, self.requests = world, requests
        self.bad: dict[str, EndpointAnswer] = {}  # by the model's artifact
        self.asked: list[tuple[int, int]] = []  # minute, how many the newest fleet got
        self.endpoint = ""
        world.cloud.time.during.append(self.minute)
        world.container = self.answer

    def minute(self) -> None:
        runtime = self.world.cloud.client("sagemaker-runtime")
        for _ in range(self.requests if self.endpoint else 0):
            try:
                runtime.invoke_endpoint(EndpointName=self.endpoint, Body=b"x")
            except runtime.exceptions.ModelError:
                continue

    def answer(self, call: EndpointCall) -> EndpointAnswer:
        shares = self.world.routes[-1]
        self.turn = getattr(self, "turn", 0) + 1
        config = list(shares)[self.turn % len(shares)]
        if not shares[config]:
            config = max(shares, key=lambda one: shares[one])
        artifact = next(one.model_data_url for one in self.world.deployments if one.config == config)
        kind = self.bad.get(artifact.rpartition("/")[2], EndpointAnswer(200, b"{}", {}))
        return EndpointAnswer(kind.status, kind.body, {}, config, kind.seconds or 0.01, kind.broken)


ERROR, BROKEN = EndpointAnswer(500, b"{}", {}), EndpointAnswer(503, b"", {}, broken=True)
SLOW, REFUSED = EndpointAnswer(200, b"{}", {}, seconds=4.0), EndpointAnswer(429, b"{}", {})


@pytest.fixture(scope="module")
def fleets(empty_world: World) -> Fleets:
    empty_world.role("endpoint", SEE_ALARMS)
    empty_world.role("blind")
    empty_world.cloud.client("sagemaker").create_model_package_group(ModelPackageGroupName="kennel")
    return Fleets(empty_world)


@pytest.fixture(autouse=True)
def sound(fleets: Fleets) -> Iterator[None]:
    yield
    fleets.bad.clear()
    fleets.endpoint, HANDLER.notices_rollback = "", True


def package(world: World, artifact: str) -> str:
    specification = {
        "Containers": [{"Image": "local/inference:1", "ModelDataUrl": f"s3://data/{artifact}"}],
        "SupportedContentTypes": ["image/*"],
        "SupportedResponseMIMETypes": ["*"],
    }
    create = world.cloud.client("sagemaker").create_model_package
    given = {"InferenceSpecification": specification, "ModelApprovalStatus": "Approved"}
    return str(create(ModelPackageGroupName="kennel", **given)["ModelPackageArn"])


def hosting(name: str, routing: dict[str, Any], *, config_alone: bool = True, role: str = "endpoint") -> dict[str, Any]:
    """A stack of an endpoint with two rollback alarms, on the new configuration alone or on the whole endpoint."""
    new = {"EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]}} if config_alone else {}
    dimensions = {"EndpointName": name, "VariantName": "V", **new}

    def metric(metric_name: str, **statistic: str) -> dict[str, Any]:
        listed = [{"Name": key, "Value": value} for key, value in dimensions.items()]
        about = {"Namespace": "AWS/SageMaker", "MetricName": metric_name, "Dimensions": listed, "Period": 60}
        limits = {"EvaluationPeriods": 1, "TreatMissingData": "notBreaching"}
        return {**about, **statistic, **limits, "ComparisonOperator": "GreaterThanOrEqualToThreshold"}

    errors = {**metric("InvocationModelErrors", Statistic="Sum"), "Threshold": 3}
    slow = {**metric("ModelLatency", ExtendedStatistic="p95"), "Threshold": 3_000_000}
    alarms = [{"AlarmName": {"Ref": one}} for one in ("RollbackErrors", "RollbackLatency")]
    deployment = {
        "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 120},
        "AutoRollbackConfiguration": {"Alarms": alarms},
    }
    container = {"ModelPackageName": {"Ref": "ModelPackageArn"}}
    variant = {"VariantName": "V", "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]}, "InitialInstanceCount": 2}
    endpoint = {"EndpointName": name, "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]}}
    role_arn = f"arn:aws:iam::123456789012:role/{role}"
    return {
        "Parameters": {"ModelPackageArn": {"Type": "String"}},
        "Resources": {
            "Model": {
                "Type": "AWS::SageMaker::Model",
                "Properties": {"ExecutionRoleArn": role_arn, "PrimaryContainer": container},
            },
            "Config": {
                "Type": "AWS::SageMaker::EndpointConfig",
                "Properties": {"ProductionVariants": [{**variant, "InstanceType": "ml.m5.large"}]},
            },
            "RollbackErrors": {"Type": "AWS::CloudWatch::Alarm", "Properties": errors},
            "RollbackLatency": {"Type": "AWS::CloudWatch::Alarm", "Properties": slow},
            "Endpoint": {
                "Type": "AWS::SageMaker::Endpoint",
                "Properties": {**endpoint, "DeploymentConfig": deployment},
            },
        },
    }


def serve(fleets: Fleets, name: str, routing: dict[str, Any] = CANARY, **how: Any) -> dict[str, Any]:
    """Create the stack with a first model, and return its template; the endpoint is asked from now on."""
    template = hosting(name, routing, **how)
    stack = fleets.world.create(name, template, ModelPackageArn=package(fleets.world, "first"))
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack["StackStatusReason"]
    fleets.endpoint = name
    fleets.world.routes.clear()
    fleets.world.routes.append({describe(fleets.world, name)["EndpointConfigName"]: 1.0})
    return template


def release(world: World, name: str, artifact: str, template: Any = None, **more: Any) -> str:
    """Update the stack with another model and return its last status."""
    body = {"UsePreviousTemplate": True} if template is None else {"TemplateBody": json.dumps(template)}
    given = [{"ParameterKey": "ModelPackageArn", "ParameterValue": package(world, artifact)}]
    world.cloud.client("cloudformation").update_stack(StackName=name, Parameters=given, **body, **more)
    eventually(lambda: not world.stack(name)["StackStatus"].endswith("IN_PROGRESS"))
    return str(world.stack(name)["StackStatus"])


def describe(world: World, name: str) -> Any:
    return world.cloud.client("sagemaker").describe_endpoint(EndpointName=name)


def shares(world: World, name: str) -> list[list[float]]:
    return [[*one.values()] for one in world.routes[1:]]


def test_a_canary_bakes_then_all_traffic_bakes_then_the_old_fleet_ends(fleets: Fleets) -> None:
    world = fleets.world
    serve(fleets, "good")
    minute = world.cloud.time.minute
    assert release(world, "good", "second") == "UPDATE_COMPLETE"
    assert shares(world, "good") == [[0.5, 0.5], [0.0, 1.0], [1.0]]
    assert world.cloud.time.minute - minute == START + 3 + 3 + 2
    about = describe(world, "good")
    assert list(world.routes[-1]) == [about["EndpointConfigName"]]
    assert "PendingDeploymentSummary" not in about


@pytest.mark.parametrize(
    ("name", "routing", "steps"),
    [
        ("linear", LINEAR, [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0.0, 1.0], [1.0]]),
        ("atonce", ALL, [[0.0, 1.0], [1.0]]),
    ],
)
def test_traffic_moves_in_the_steps_of_its_kind(
    fleets: Fleets, name: str, routing: dict[str, Any], steps: list[list[float]]
) -> None:
    serve(fleets, name, routing)
    assert release(fleets.world, name, "second") == "UPDATE_COMPLETE"
    assert shares(fleets.world, name) == steps


@pytest.mark.parametrize("answer", [ERROR, BROKEN, SLOW], ids=["error", "broken", "slow"])
def test_a_bad_model_goes_in_its_first_minute_and_the_old_one_stays(fleets: Fleets, answer: EndpointAnswer) -> None:
    world, name = fleets.world, f"bad{answer.status}{answer.seconds:g}".replace(".", "")
    serve(fleets, name)
    before, minute = describe(world, name)["EndpointConfigName"], world.cloud.time.minute
    fleets.bad["bad"] = answer
    assert release(world, name, "bad") == "UPDATE_ROLLBACK_COMPLETE"
    assert shares(world, name) == [[0.5, 0.5], [1.0]]
    assert world.cloud.time.minute - minute == START + 1
    about = describe(world, name)
    assert (about["EndpointStatus"], about["EndpointConfigName"]) == ("InService", before)
    assert "FailureReason" not in about
    assert release(world, name, "second") == "UPDATE_COMPLETE"


def test_a_broken_connection_is_a_model_error_and_no_5xx(fleets: Fleets) -> None:
    template = hosting("sockets", CANARY)
    template["Resources"]["RollbackErrors"]["Properties"]["MetricName"] = "Invocation5XXErrors"
    fleets.world.create("sockets", template, ModelPackageArn=package(fleets.world, "first"))
    fleets.endpoint, fleets.bad["bad"] = "sockets", BROKEN
    assert release(fleets.world, "sockets", "bad") == "UPDATE_COMPLETE"  # what a model that crashes once was


def test_a_good_model_takes_the_place_of_a_broken_one_only_if_the_alarms_look_at_the_new_fleet(fleets: Fleets) -> None:
    world = fleets.world
    fleets.bad["first"] = ERROR
    serve(fleets, "mend")
    assert release(world, "mend", "good") == "UPDATE_COMPLETE"
    serve(fleets, "mixed", config_alone=False)
    assert release(world, "mixed", "good") == "UPDATE_ROLLBACK_COMPLETE"


def test_a_model_that_does_not_start_is_told_why_and_gets_no_request(fleets: Fleets) -> None:
    world = fleets.world
    serve(fleets, "starts")
    world.refuse_models = "garbage"
    assert release(world, "starts", "garbage") == "UPDATE_ROLLBACK_COMPLETE"
    world.refuse_models = None
    assert "garbage does not load" in world.stack("starts")["StackStatusReason"]
    assert shares(world, "starts") == [[1.0]]


def test_where_cloudformation_does_not_notice_it_says_complete_and_deletes_what_serves(fleets: Fleets) -> None:
    world = fleets.world
    serve(fleets, "unseen")
    before = describe(world, "unseen")["EndpointConfigName"]
    fleets.bad["bad"], HANDLER.notices_rollback = ERROR, False
    assert release(world, "unseen", "bad") == "UPDATE_COMPLETE"
    assert describe(world, "unseen")["EndpointConfigName"] == before
    gone = world.cloud.client("sagemaker").describe_endpoint_config
    assert refusal(gone, EndpointConfigName=before)[0] == "ValidationException"


def triggers(world: World, name: str, minutes: int) -> dict[str, Any]:
    alarms = world.cloud.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{name}-")["MetricAlarms"]
    found = [{"Arn": one["AlarmArn"], "Type": "AWS::CloudWatch::Alarm"} for one in alarms]
    return {"RollbackConfiguration": {"RollbackTriggers": found, "MonitoringTimeInMinutes": minutes}}


def without_guardrails(template: dict[str, Any]) -> dict[str, Any]:
    del template["Resources"]["Endpoint"]["Properties"]["DeploymentConfig"]["AutoRollbackConfiguration"]
    return template


def test_cloudformations_triggers_alone_roll_back_once_the_endpoints_update_is_over(fleets: Fleets) -> None:
    world = fleets.world
    template = without_guardrails(serve(fleets, "alone"))
    before = describe(world, "alone")["EndpointConfigName"]
    fleets.bad["bad"] = ERROR
    assert release(world, "alone", "bad", template, **triggers(world, "alone", 5)) == "UPDATE_ROLLBACK_COMPLETE"
    assert "alone-RollbackErrors" in world.stack("alone")["StackStatusReason"]
    assert describe(world, "alone")["EndpointConfigName"] == before


def test_the_triggers_are_watched_after_the_update_too_and_save_what_sagemaker_let_pass(fleets: Fleets) -> None:
    world = fleets.world
    serve(fleets, "later")
    minute = world.cloud.time.minute
    time, late = world.cloud.time, ERROR
    time.during.append(spoil := lambda: fleets.bad.update({"bad": late} if time.minute - minute > START + 9 else {}))
    assert release(world, "later", "bad", **triggers(world, "later", 10)) == "UPDATE_ROLLBACK_COMPLETE"
    time.during.remove(spoil)
    assert "later-RollbackErrors" in world.stack("later")["StackStatusReason"]


def test_with_triggers_an_unnoticed_rollback_is_one_of_the_stack_too(fleets: Fleets) -> None:
    world = fleets.world
    serve(fleets, "double")
    before = describe(world, "double")["EndpointConfigName"]
    fleets.bad["bad"], HANDLER.notices_rollback = ERROR, False
    assert release(world, "double", "bad", **triggers(world, "double", 5)) == "UPDATE_ROLLBACK_COMPLETE"
    assert describe(world, "double")["EndpointConfigName"] == before


def test_a_trigger_that_does_not_exist_fails_the_update(fleets: Fleets) -> None:
    serve(fleets, "absent")
    arn = "arn:aws:cloudwatch:us-east-1:123456789012:alarm:nobody"
    missing = {"RollbackTriggers": [{"Arn": arn, "Type": "AWS::CloudWatch::Alarm"}]}
    assert release(fleets.world, "absent", "good", RollbackConfiguration=missing) == "UPDATE_ROLLBACK_COMPLETE"
    assert "nobody does not exist" in fleets.world.stack("absent")["StackStatusReason"]


def test_a_role_that_may_not_see_the_alarms_is_refused(fleets: Fleets) -> None:
    stack = fleets.world.create(
        "blind", hosting("blind", CANARY, role="blind"), ModelPackageArn=package(fleets.world, "x")
    )
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "cloudwatch:DescribeAlarms" in stack["StackStatusReason"]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """All events that reach the bus, with their detail as an object."""
    found: list[dict[str, Any]] = []
    put = EventsBackend.put_events

    def put_events(backend: EventsBackend, entries: list[dict[str, Any]]) -> Any:
        found.extend({**one, "Detail": json.loads(one["Detail"])} for one in entries)
        return put(backend, entries)

    monkeypatch.setattr(EventsBackend, "put_events", put_events)
    return found


def test_an_update_shows_its_stages_and_sends_an_event_of_each(fleets: Fleets, events: list[dict[str, Any]]) -> None:
    world = fleets.world
    serve(fleets, "told")
    events.clear()
    seen: list[Any] = []
    world.cloud.time.during.append(look := lambda: seen.append(describe(world, "told")))
    assert release(world, "told", "second") == "UPDATE_COMPLETE"
    world.cloud.time.during.remove(look)
    stages = [one["PendingDeploymentSummary"]["ProductionVariants"][0]["VariantStatus"][0] for one in seen]
    assert [one["Status"] for one in stages[: START + 1]] == ["Creating"] * START + ["Baking"]
    assert {one["EndpointStatus"] for one in seen} == {"Updating"}
    assert "traffic enabled on canary capacity of 1 instance(s)." in stages[START]["StatusMessage"]
    assert seen[0]["EndpointConfigName"] != seen[0]["PendingDeploymentSummary"]["EndpointConfigName"]
    states = [
        one["Detail"]["EndpointStatus"] for one in events if one["DetailType"] == "SageMaker Endpoint State Change"
    ]
    assert states == ["UPDATING", "IN_SERVICE"]
    told = [
        one["Detail"]["PendingDeploymentSummary"]["ProductionVariants"][0]["VariantStatus"][0]["Status"]
        for one in events
        if one["DetailType"] == "SageMaker Endpoint Deployment State Change"
    ]
    assert told == ["Creating", "ActivatingTraffic", "Baking", "ActivatingTraffic", "Baking", "Baking"]


def test_the_alarm_that_rolled_back_is_an_event_and_in_the_history(
    fleets: Fleets, events: list[dict[str, Any]]
) -> None:
    world = fleets.world
    serve(fleets, "rung")
    events.clear()
    fleets.bad["bad"] = SLOW
    assert release(world, "rung", "bad") == "UPDATE_ROLLBACK_COMPLETE"
    rung = [one["Detail"] for one in events if one["Source"] == "aws.cloudwatch"]
    slow = [one for one in rung if one["state"]["value"] == "ALARM"]
    assert [one["alarmName"].rpartition("-")[0] for one in slow] == ["rung-RollbackLatency"]
    history = world.cloud.client("cloudwatch").describe_alarm_history(AlarmName=slow[0]["alarmName"], MaxRecords=1)
    assert history["AlarmHistoryItems"][0]["HistorySummary"].endswith("to ALARM")


def test_the_number_of_instances_is_retained_where_the_update_says_so(fleets: Fleets) -> None:
    world = fleets.world
    template = serve(fleets, "retained")
    template["Resources"]["Config"]["Properties"]["ProductionVariants"][0]["InitialInstanceCount"] = 5
    template["Resources"]["Endpoint"]["Properties"]["RetainAllVariantProperties"] = True
    assert release(world, "retained", "second", template) == "UPDATE_COMPLETE"
    assert world.deployments[-1].instance_count == 2  # whatever the new configuration says
    template["Resources"]["Endpoint"]["Properties"]["RetainAllVariantProperties"] = False
    assert release(world, "retained", "third", template) == "UPDATE_COMPLETE"
    assert world.deployments[-1].instance_count == 5
