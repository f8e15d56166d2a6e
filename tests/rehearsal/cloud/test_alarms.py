"""CloudWatch's alarms in simulated time: metric math, statistics, units, missing data, history and events."""

import time
from typing import Any

import pytest

from kennel.rehearsal.cloud.cloudwatch.alarms import state_of
from kennel.rehearsal.cloud.cloudwatch.metric_math import Points, evaluate
from kennel.rehearsal.cloud.cloudwatch.metrics import statistic
from tests.rehearsal.cloud.world import World, refusal

NAMESPACE, DIMENSIONS = "AWS/SageMaker", [{"Name": "EndpointName", "Value": "kennel"}]


@pytest.mark.parametrize(
    ("expression", "points"),
    [
        ("e / n * 100", [50.0, None, None]),
        ("FILL(e, 0) - n", [-2.0, 0.0, None]),
        ("IF(FILL(e, 0) >= 2, 100 * e / n, 0)", [50.0, 0.0, 0.0]),
        ("IF(n > 1 AND e > 1, 1)", [1.0, None, None]),
        ("IF(n == 0 || n > 3, 1, 7)", [1.0, 1.0, None]),
        ("MAX([e, FILL(n, 9)])", [4.0, None, None]),
        ("FILL(e, REPEAT)", [2.0, 2.0, 2.0]),
        ("-e ^ 2 + 1", [-3.0, None, None]),
        ("3", [3.0, 3.0, 3.0]),
    ],
)
def test_metric_math_is_evaluated_period_by_period(expression: str, points: Points) -> None:
    assert evaluate(expression, {"e": [2.0, None, None], "n": [4.0, 0.0, None]}) == points


def test_metric_math_that_is_not_rehearsed_says_so() -> None:
    with pytest.raises(NotImplementedError, match="ANOMALY_DETECTION_BAND"):
        evaluate("ANOMALY_DETECTION_BAND(m)", {"m": [1.0]})


def test_a_percentile_is_the_sample_at_its_rank() -> None:
    assert statistic("p95", [float(number) for number in range(1, 101)]) == 95.0
    assert statistic("p95", [1.0, 5.0]) == 5.0
    assert statistic("Average", [1.0, 2.0]) == 1.5
    assert statistic("Sum", []) is None


def alarm(periods: int, treatment: str = "missing", to_alarm: int | None = None) -> dict[str, Any]:
    about = {"Threshold": 5.0, "ComparisonOperator": "GreaterThanOrEqualToThreshold", "TreatMissingData": treatment}
    return {**about, "EvaluationPeriods": periods, "DatapointsToAlarm": to_alarm}


X, O, NONE = 9.0, 0.0, None  # noqa: E741  (breaching, not breaching, missing: the table of CloudWatch's guide)


@pytest.mark.parametrize(
    ("points", "missing", "ignore", "breaching", "not_breaching"),
    [
        ([O, NONE, X, NONE, X], "OK", "OK", "OK", "OK"),
        ([O, NONE, NONE, NONE, NONE], "OK", "OK", "OK", "OK"),
        ([NONE, NONE, NONE, NONE, NONE], "INSUFFICIENT_DATA", None, "ALARM", "OK"),
        ([O, X, X, NONE, X], "ALARM", "ALARM", "ALARM", "ALARM"),
        ([NONE, NONE, X, NONE, NONE], "ALARM", None, "ALARM", "OK"),
    ],
)
def test_missing_data_are_treated_as_cloudwatchs_guide_shows_for_three_of_three(
    points: Points, missing: str, ignore: str, breaching: str, not_breaching: str
) -> None:
    expected = {"missing": missing, "ignore": ignore, "breaching": breaching, "notBreaching": not_breaching}
    assert {treatment: state_of(alarm(3, treatment), points) for treatment in expected} == expected


def test_two_datapoints_of_three_may_be_enough() -> None:
    assert state_of(alarm(3, to_alarm=2), [O, O, X, O, X]) == "ALARM"
    assert state_of(alarm(3, to_alarm=2), [X, X, O, O, X]) == "OK"


@pytest.fixture(scope="module")
def world(empty_world: World) -> World:
    return empty_world


def put(world: World, name: str, value: float, unit: str = "None") -> None:
    datum = {"MetricName": name, "Dimensions": DIMENSIONS, "Value": value, "Unit": unit}
    world.cloud.client("cloudwatch").put_metric_data(Namespace=NAMESPACE, MetricData=[datum])


def make(world: World, name: str, **members: Any) -> None:
    about = {"Threshold": 5, "ComparisonOperator": "GreaterThanOrEqualToThreshold", "EvaluationPeriods": 1}
    metric = {"Namespace": NAMESPACE, "MetricName": name, "Dimensions": DIMENSIONS, "Period": 60, "Statistic": "Sum"}
    given = members if "Metrics" in members else {**metric, **members}
    world.cloud.client("cloudwatch").put_metric_alarm(
        AlarmName=name, **{**about, "TreatMissingData": "notBreaching", **given}
    )


def state(world: World, name: str) -> str:
    return str(world.cloud.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"])


def test_an_alarm_follows_its_metric_minute_by_minute_and_history_and_event_say_so(world: World) -> None:
    make(world, "Follows")
    put(world, "Follows", 4)
    world.cloud.time.wait(60)
    assert state(world, "Follows") == "OK"
    put(world, "Follows", 3)
    put(world, "Follows", 3)
    world.cloud.time.wait(60)
    assert state(world, "Follows") == "ALARM"
    world.cloud.time.wait(180)
    assert state(world, "Follows") == "OK"
    history = world.cloud.client("cloudwatch").describe_alarm_history(
        AlarmName="Follows", HistoryItemType="StateUpdate", ScanBy="TimestampAscending"
    )["AlarmHistoryItems"]
    assert [one["HistorySummary"] for one in history] == [
        "Alarm updated from OK to ALARM",
        "Alarm updated from ALARM to OK",
    ]


def test_samples_in_another_unit_are_not_the_alarms(world: World) -> None:
    make(world, "Unit", Unit="Microseconds")
    put(world, "Unit", 9, "Milliseconds")
    world.cloud.time.wait(60)
    assert state(world, "Unit") == "OK"
    put(world, "Unit", 9, "Microseconds")
    world.cloud.time.wait(60)
    assert state(world, "Unit") == "ALARM"


def test_an_alarm_on_metric_math_sees_the_metrics_of_its_own_dimensions(world: World) -> None:
    def query(id_: str, name: str, stat: str) -> dict[str, Any]:
        metric = {"Namespace": NAMESPACE, "MetricName": name, "Dimensions": DIMENSIONS}
        return {"Id": id_, "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}, "ReturnData": False}

    share = {"Id": "share", "Expression": "IF(bad >= 3, 100 * bad / n, 0)", "ReturnData": True}
    bad = {"Id": "bad", "Expression": "FILL(e, 0)", "ReturnData": False}
    make(world, "Share", Metrics=[share, bad, query("e", "Errors", "Sum"), query("n", "Asked", "SampleCount")])
    for minute, (asked, errors) in enumerate([(100, 4), (50, 3), (10, 0)]):
        for number in range(asked):
            put(world, "Asked", 1)
            if number < errors:
                put(world, "Errors", 1)
        world.cloud.time.wait(60)
        assert state(world, "Share") == ("OK", "ALARM", "OK")[minute]


def test_a_metric_filter_counts_the_log_lines_that_match(world: World) -> None:
    logs, group = world.cloud.client("logs"), "/aws/lambda/observe"
    metric = {"metricNamespace": NAMESPACE, "metricName": "Diverged", "metricValue": "1"}
    filters = {
        "Type": "AWS::Logs::MetricFilter",
        "Properties": {
            "LogGroupName": group,
            "FilterPattern": '{ $.state = "diverged" }',
            "MetricTransformations": [
                {
                    **{name[0].upper() + name[1:]: value for name, value in metric.items()},
                    "Dimensions": [{"Key": "EndpointName", "Value": "$.endpoint"}],
                }
            ],
        },
    }
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="one")
    world.create("Filters", {"Resources": {"Diverged": filters}})
    make(world, "Diverged", Threshold=2)
    lines = ['{"state": "diverged", "endpoint": "kennel"}', '{"state": "live", "endpoint": "kennel"}', "diverged"]
    for expected in ("OK", "ALARM"):
        for line in lines if expected == "OK" else [*lines, *lines]:
            event = {"timestamp": int(time.time() * 1000), "message": line}
            logs.put_log_events(logGroupName=group, logStreamName="one", logEvents=[event])
        world.cloud.time.wait(60)
        assert state(world, "Diverged") == expected


def test_a_role_sees_the_alarms_that_its_policy_names_and_no_other(world: World) -> None:
    make(world, "Mine")
    make(world, "Yours")
    mine = "arn:aws:cloudwatch:us-east-1:123456789012:alarm:Mi*"
    role = world.role("watcher", {"Effect": "Allow", "Action": "cloudwatch:DescribeAlarms", "Resource": mine})
    describe = world.cloud.client("cloudwatch", role).describe_alarms
    assert len(describe(AlarmNames=["Mine"])["MetricAlarms"]) == 1
    assert refusal(describe, AlarmNames=["Mine", "Yours"])[0] == "AccessDeniedException"
