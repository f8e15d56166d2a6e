"""The scaling target follows from a measurement, and synth says where the two do not fit."""

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_sagemaker as sagemaker

from stacks.config import HostingSettings, ScheduledCapacity, SettingsError
from stacks.hosting.scaling import (
    FILE,
    EndpointScaling,
    Load,
    Measured,
    capacity_warnings,
    read_capacity,
    scaling_target,
)
from tests.stacks.synthesized import Synthesized

LOADS = (Load(10.0, 2.0), Load(40.0, 8.0), Load(50.0, 20.0))
TYPE = "ml.m5.xlarge"


def measured(**changes: Any) -> Measured:
    plain: dict[str, Any] = {"instance_type": TYPE, "architecture": "resnet50", "image_size": 224}
    return Measured(**(plain | {"runtime": "openvino", "precision": "int8", "loads": LOADS} | changes))


def entry(**changes: Any) -> dict[str, Any]:
    loads = [{"requests_per_second": load.rate, "concurrency_peak": load.peak} for load in reversed(LOADS)]
    model = {"architecture": "resnet50", "image_size": 224}
    return {"model": model, "runtime": "openvino", "precision": "int8", "target_p99_ms": 500, "loads": loads} | changes


def write(folder: Path, **entries: dict[str, Any]) -> Path:
    file = folder / "capacity.json"
    file.write_text(json.dumps({"format": 1, "measured": entries}))
    return file


def test_the_instance_types_own_measurement_is_taken_before_another_machines(tmp_path: Path) -> None:
    file = write(tmp_path, **{"": entry(precision="bfloat16"), TYPE: entry()})
    assert read_capacity(TYPE, file) == measured()
    assert read_capacity("ml.m5.large", file) == measured(instance_type="", precision="bfloat16")


def test_without_a_file_or_a_fitting_entry_there_is_no_measurement(tmp_path: Path) -> None:
    assert read_capacity(TYPE, tmp_path / "none.json") is None
    assert read_capacity("ml.m5.large", write(tmp_path, **{TYPE: entry()})) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"measured": {"": {}}}', '{"measured": {"": []}}'])
def test_a_broken_file_ends_the_synth_with_a_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "capacity.json"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"capacity\.json was not written by `kennel loadtest`.*write it anew"):
        read_capacity(TYPE, file)


def test_a_measurement_without_a_load_that_met_the_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no load that met the target"):
        read_capacity(TYPE, write(tmp_path, **{TYPE: entry(loads=[])}))


def test_the_concurrency_target_is_what_was_in_flight_at_the_safe_rate() -> None:
    # 0.7 of 50 is 35 requests a second, five sixths of the way from 10 (2 in flight) to 40 (8 in flight).
    assert scaling_target(HostingSettings(safety_factor=0.7), measured()) == 7.0
    assert scaling_target(HostingSettings(safety_factor=1.0), measured()) == 20.0


def test_below_the_least_load_that_was_measured_the_line_goes_to_nothing() -> None:
    assert scaling_target(HostingSettings(safety_factor=0.7), measured(loads=(Load(100.0, 10.0),))) == 7.0


def test_the_invocations_target_is_the_safe_rate_a_minute() -> None:
    settings = HostingSettings(scaling_metric="invocations", safety_factor=0.7)
    assert scaling_target(settings, measured()) == 50 * 0.7 * 60


def test_a_fleet_can_always_shrink_again_when_single_requests_come() -> None:
    assert scaling_target(HostingSettings(), measured(loads=(Load(3.0, 1.0),))) == 2.0


@pytest.mark.parametrize(("metric", "expected"), [("concurrency", 2.0), ("invocations", 60.0)])
def test_without_a_measurement_the_target_is_low(metric: str, expected: float) -> None:
    assert scaling_target(HostingSettings(scaling_metric=metric), None) == expected


def test_a_target_set_by_hand_counts_and_silences_every_doubt() -> None:
    settings = HostingSettings(scaling_target=12.5)
    assert scaling_target(settings, measured()) == 12.5
    assert capacity_warnings(settings, None) == {}


@pytest.mark.parametrize(
    ("found", "ids"),
    [
        (measured(), set()),
        (None, {"missing"}),
        (measured(instance_type=""), {"instance-type"}),
        (measured(architecture="resnet18"), {"model"}),
        (measured(image_size=160), {"model"}),
        (measured(image_size=None), set()),
        (measured(runtime="torch"), {"arithmetic"}),
        (measured(instance_type="", architecture="resnet18"), {"instance-type", "model"}),
    ],
)
def test_each_disagreement_of_settings_and_file_has_an_id_of_its_own(found: Measured | None, ids: set[str]) -> None:
    warnings = capacity_warnings(HostingSettings(instance_type=TYPE), found)
    assert set(warnings) == {f"kennel:capacity-{each}" for each in ids}


def test_auto_precision_agrees_with_whatever_was_measured_and_a_fixed_one_only_with_itself() -> None:
    assert capacity_warnings(HostingSettings(precision="int8"), measured()) == {}
    assert set(capacity_warnings(HostingSettings(precision="float32"), measured())) == {"kennel:capacity-arithmetic"}


def test_a_doubt_says_which_command_settles_it() -> None:
    (text,) = capacity_warnings(HostingSettings(), None).values()
    assert f"measure on {TYPE}: kennel loadtest --stage STAGE --out stacks/capacity.json" in text


def scaled(*, acknowledged: str = "", **settings: Any) -> cdk.Stack:
    stack = cdk.Stack(cdk.App(), "Any")
    if acknowledged:
        cdk.Annotations.of(stack).acknowledge_warning(acknowledged, "a reason")
    endpoint = sagemaker.CfnEndpoint(stack, "Endpoint", endpoint_name="any", endpoint_config_name="any")
    EndpointScaling(stack, "Scaling", settings=HostingSettings(**settings), endpoint=endpoint)
    return stack


def warnings(stack: cdk.Stack) -> list[str]:
    anything = assertions.Match.any_value()
    return [str(each.entry.data) for each in assertions.Annotations.from_stack(stack).find_warning("*", anything)]


def test_synth_warns_under_that_id_and_an_acknowledgement_silences_it() -> None:
    (warning,) = warnings(scaled(instance_type="ml.c5.9xlarge"))
    assert warning.startswith("The scaling target comes from another machine than ml.c5.9xlarge")
    assert "kennel:capacity-instance-type" in warning
    assert warnings(scaled(instance_type="ml.c5.9xlarge", acknowledged="kennel:capacity-instance-type")) == []


def test_where_nothing_scales_nothing_is_registered_and_nothing_said() -> None:
    stack = scaled(min_instances=3, max_instances=3)
    assertions.Template.from_stack(stack).resource_count_is("AWS::ApplicationAutoScaling::ScalableTarget", 0)
    assert warnings(stack) == []


def test_scheduled_bounds_stand_beside_the_target() -> None:
    weekdays = ScheduledCapacity(cron="0 7 ? * MON-FRI *", timezone="Europe/Berlin", min_instances=3, max_instances=8)
    target = assertions.Template.from_stack(scaled(schedule=(weekdays,)))
    target.has_resource_properties(
        "AWS::ApplicationAutoScaling::ScalableTarget",
        {
            "MinCapacity": 2,
            "ScheduledActions": [
                {
                    "Schedule": "cron(0 7 ? * MON-FRI *)",
                    "ScheduledActionName": "Schedule1",
                    "Timezone": "Europe/Berlin",
                    "ScalableTargetAction": {"MinCapacity": 3, "MaxCapacity": 8},
                }
            ],
        },
    )


@pytest.mark.parametrize(("stage", "low", "high"), [("Dev", 1, 2), ("Prod", 2, 4)])
def test_the_fleet_scales_between_its_bounds_once_the_endpoint_is_there(
    synth: Synthesized, stage: str, low: int, high: int
) -> None:
    ((_, target),) = synth.resources(stage, "Hosting", "AWS::ApplicationAutoScaling::ScalableTarget").items()
    assert (target["Properties"]["MinCapacity"], target["Properties"]["MaxCapacity"]) == (low, high)
    assert target["Properties"]["ResourceId"] == f"endpoint/kennel-{stage.lower()}/variant/AllTraffic"
    assert target["DependsOn"] == ["Endpoint"]  # its name is literal, so nothing else makes it wait
    assert "ScheduledActions" not in target["Properties"]


def test_it_follows_the_requests_in_flight_each_ten_seconds(synth: Synthesized, stage: str) -> None:
    policy = synth.only(stage, "Hosting", "AWS::ApplicationAutoScaling::ScalingPolicy")
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    metric = tracking["PredefinedMetricSpecification"]["PredefinedMetricType"]
    assert metric == "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    assert (tracking["ScaleOutCooldown"], tracking["ScaleInCooldown"]) == (300, 300)


def test_the_invocations_metric_is_the_alternative() -> None:
    template = assertions.Template.from_stack(scaled(scaling_metric="invocations", scaling_target=600))
    specification = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    tracking = {"PredefinedMetricSpecification": specification, "TargetValue": 600}
    template.has_resource_properties(
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        {"TargetTrackingScalingPolicyConfiguration": assertions.Match.object_like(tracking)},
    )


def test_the_files_target_is_the_one_that_is_deployed(synth: Synthesized, stage: str) -> None:
    type_ = {"Dev": "ml.m5.large", "Prod": "ml.m5.xlarge"}[stage]
    policy = synth.only(stage, "Hosting", "AWS::ApplicationAutoScaling::ScalingPolicy")
    expected = scaling_target(HostingSettings(), read_capacity(type_, FILE))
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == expected
