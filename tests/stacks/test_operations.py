"""Alarms in the right units, all to one topic that may be written to; a budget; a dashboard."""

from pathlib import Path
from typing import Any

import pytest

from kennel.rehearsal.cloud.cloudwatch.metric_math import evaluate
from tests.stacks.synthesized import Synthesized, text

COSTS = Path(__file__).resolve().parents[2] / "docs" / "costs.md"
EVERYWHERE = {
    "Endpoint4xx",
    "Endpoint5xx",
    "EndpointLatency",
    "EndpointSaturation",
    "ClassifyErrors",
    "ClassifyThrottles",
    "ClassifyDuration",
    "ApiFailures",
    "RunNotStarted",
    "ReleaseFailed",
    "ApprovalNotQueued",
    "ReleaseDiverged",
    "ObserverErrors",
}


def alarms_of(synth: Synthesized, stage: str) -> dict[str, dict[str, Any]]:
    """Construct id -> the alarm's properties."""
    alarms = synth.resources(stage, "Operations", "AWS::CloudWatch::Alarm")
    return {id_[:-8]: alarm["Properties"] for id_, alarm in alarms.items()}  # less CDK's hash


def measured(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """The statistics that an alarm looks at; those of metric math are several."""
    several = [each["MetricStat"] for each in alarm.get("Metrics", []) if "MetricStat" in each]
    return several or [{"Metric": alarm, "Period": alarm["Period"]}]


def test_dev_watches_everything_but_the_spillover_that_it_cannot_have(synth: Synthesized) -> None:
    assert set(alarms_of(synth, "Dev")) == EVERYWHERE
    assert set(alarms_of(synth, "Prod")) == EVERYWHERE | {"ClassifySpillover"}


@pytest.mark.parametrize(
    ("name", "dev", "prod"),
    [
        ("EndpointLatency", 2_000_000, 2_000_000),  # microseconds: 2 s
        ("ClassifyDuration", 10_000, 10_000),  # milliseconds: 10 s
        ("EndpointSaturation", 170, 340),  # 85 % of two cores (ml.m5.large) and of four (ml.m5.xlarge)
        ("ClassifyErrors", 1, 1),
        ("Endpoint5xx", 5, 5),
    ],
)
def test_thresholds_are_in_the_metrics_own_units(synth: Synthesized, name: str, dev: int, prod: int) -> None:
    assert alarms_of(synth, "Dev")[name]["Threshold"] == dev
    assert alarms_of(synth, "Prod")[name]["Threshold"] == prod


def test_alarms_go_off_by_minutes_and_take_silence_for_health(synth: Synthesized, stage: str) -> None:
    for metric, alarm in alarms_of(synth, stage).items():
        assert {each["Period"] for each in measured(alarm)} == {60}, metric
        assert alarm["TreatMissingData"] == "notBreaching", metric
        assert alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold", metric
        assert alarm["AlarmDescription"], metric


def test_every_alarm_tells_the_topic_when_it_begins_and_when_it_ends(synth: Synthesized, stage: str) -> None:
    (topic,) = synth.resources(stage, "Operations", "AWS::SNS::Topic")
    for metric, alarm in alarms_of(synth, stage).items():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": topic}], metric


def test_uploads_and_approvals_that_led_to_nothing_ring(synth: Synthesized, stage: str) -> None:
    for alarm, stack in (("RunNotStarted", "Pipeline"), ("ReleaseFailed", "Release")):
        (queue,) = alarms_of(synth, stage)[alarm]["Dimensions"]
        assert text(queue["Value"]).startswith(f"<Kennel-{stage}-{stack}."), alarm


def test_a_run_that_failed_is_told_to_the_topic(synth: Synthesized, stage: str) -> None:
    (topic,) = synth.resources(stage, "Operations", "AWS::SNS::Topic")
    rules = [each["Properties"] for each in synth.resources(stage, "Operations", "AWS::Events::Rule").values()]
    (rule,) = [
        each
        for each in rules
        if each["EventPattern"]["detail-type"] == ["SageMaker Model Building Pipeline Execution Status Change"]
    ]
    detail = rule["EventPattern"]["detail"]
    assert text(detail["pipelineArn"][0]).endswith(f":pipeline/kennel-{stage.lower()}")
    assert detail["currentPipelineExecutionStatus"] == ["Failed"]
    assert [target["Arn"] for target in rule["Targets"]] == [{"Ref": topic}]


def test_eventbridge_may_use_the_topics_key_without_a_condition_that_it_cannot_meet(
    synth: Synthesized, stage: str
) -> None:
    statements = synth.only(stage, "Data", "AWS::KMS::Key")["KeyPolicy"]["Statement"]
    (own,) = [each for each in statements if "events.amazonaws.com" in str(each["Principal"])]
    assert own["Principal"] == {"Service": "events.amazonaws.com"}
    assert "Condition" not in own


def test_the_functions_alarms_watch_the_alias_that_callers_use(synth: Synthesized, stage: str) -> None:
    for metric in ("ClassifyErrors", "ClassifyThrottles", "ClassifyDuration"):
        for each in measured(alarms_of(synth, stage)[metric]):
            dimensions = {one["Name"]: text(one["Value"]) for one in each["Metric"]["Dimensions"]}
            assert dimensions["Resource"].endswith(":live"), metric


def test_what_the_model_failed_rings_also_where_its_connection_broke_and_what_it_refused_does_not(
    synth: Synthesized, stage: str
) -> None:
    alarm = alarms_of(synth, stage)["Endpoint5xx"]
    assert {
        one["Id"]: one["MetricStat"]["Metric"]["MetricName"] for one in alarm["Metrics"] if "MetricStat" in one
    } == {
        "asked": "Invocations",
        "failed": "InvocationModelErrors",
        "refused": "Invocation4XXErrors",
    }
    (expression,) = [one["Expression"] for one in alarm["Metrics"] if "Expression" in one]
    minutes = {"asked": [9.0, 9.0, 9.0, None], "failed": [7.0, 7.0, None, None], "refused": [None, 7.0, None, None]}
    assert evaluate(expression, minutes) == [7, 0, 0, None]


def test_the_page_on_costs_counts_the_metrics_that_alarms_are_paid_by(synth: Synthesized, stage: str) -> None:
    alarms = [
        each for room in synth.rooms(stage) for each in synth.resources(stage, room, "AWS::CloudWatch::Alarm").values()
    ]
    count = sum(len(measured(each["Properties"])) for each in alarms)
    assert f"1 + {count} \N{MULTIPLICATION SIGN} 0.10 + 3 = {4 + count / 10:.2f}" in COSTS.read_text()


def test_a_slow_request_alone_in_its_minute_rings_nothing(synth: Synthesized, stage: str) -> None:
    for name, count in (("EndpointLatency", "Invocations"), ("ClassifyDuration", "Invocations")):
        alarm = alarms_of(synth, stage)[name]
        (expression,) = [each["Expression"] for each in alarm["Metrics"] if "Expression" in each]
        assert expression == "IF(FILL(asked, 0) >= 10, p95, 0 * p95)"
        by_id = {each["Id"]: each["MetricStat"] for each in alarm["Metrics"] if "MetricStat" in each}
        assert (by_id["asked"]["Metric"]["MetricName"], by_id["asked"]["Stat"]) == (count, "Sum")
        assert by_id["p95"]["Stat"] == "p95"


def test_cloudwatch_and_budgets_of_this_account_may_write_to_the_topic(synth: Synthesized, stage: str) -> None:
    statements = synth.only(stage, "Operations", "AWS::SNS::TopicPolicy")["PolicyDocument"]["Statement"]
    allow, by_rules = [each for each in statements if each["Effect"] == "Allow"]
    assert by_rules["Principal"] == {"Service": "events.amazonaws.com"}
    assert allow["Principal"] == {"Service": ["budgets.amazonaws.com", "cloudwatch.amazonaws.com"]}
    assert allow["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    (deny,) = [each for each in statements if each["Effect"] == "Deny"]
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_the_senders_may_use_the_key_of_the_encrypted_topic(synth: Synthesized, stage: str) -> None:
    topic = synth.only(stage, "Operations", "AWS::SNS::Topic")
    assert text(topic["KmsMasterKeyId"]).startswith(f"<Kennel-{stage}-Data.")
    statements = synth.only(stage, "Data", "AWS::KMS::Key")["KeyPolicy"]["Statement"]
    allowed = {
        service
        for statement in statements
        if "kms:GenerateDataKey*" in statement["Action"] and "Service" in statement["Principal"]
        for service in _listed(statement["Principal"]["Service"])
        if statement.get("Condition") == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    }
    assert {"budgets.amazonaws.com", "cloudwatch.amazonaws.com"} <= allowed


@pytest.mark.parametrize(("stage", "dollars"), [("Dev", 200), ("Prod", 1500)])
def test_the_budget_warns_before_at_and_ahead_of_its_limit(synth: Synthesized, stage: str, dollars: int) -> None:
    budget = synth.only(stage, "Operations", "AWS::Budgets::Budget")
    (topic,) = synth.resources(stage, "Operations", "AWS::SNS::Topic")
    assert budget["Budget"]["BudgetLimit"] == {"Amount": dollars, "Unit": "USD"}
    assert budget["Budget"]["TimeUnit"] == "MONTHLY"
    notices = budget["NotificationsWithSubscribers"]
    told = [(each["Notification"]["NotificationType"], each["Notification"]["Threshold"]) for each in notices]
    assert told == [("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100)]
    for each in notices:
        assert each["Subscribers"] == [{"Address": {"Ref": topic}, "SubscriptionType": "SNS"}]


def test_the_dashboard_shows_what_the_alarms_watch(synth: Synthesized, stage: str) -> None:
    body = text(synth.only(stage, "Operations", "AWS::CloudWatch::Dashboard")["DashboardBody"])
    for metric in ("ModelLatency", "InvocationModelErrors", "CPUUtilization", "Duration", "Throttles", "5xx"):
        assert f'"{metric}"' in body, metric


def test_without_an_address_nobody_is_subscribed(synth: Synthesized, stage: str) -> None:
    assert synth.resources(stage, "Operations", "AWS::SNS::Subscription") == {}


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
