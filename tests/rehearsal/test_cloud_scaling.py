"""Scaling as templates write it: a target whose schedule lives in an API of its own, and a policy that tracks it."""

from typing import Any

import pytest

from kennel.rehearsal.cloud.cloudformation.coverage import missing_from
from kennel.rehearsal.cloud.cloudformation.readback import READS
from tests.rehearsal.cloud_world import World

ACTION = {
    "ScheduledActionName": "Schedule1",
    "Schedule": "cron(0 7 ? * MON-FRI *)",
    "Timezone": "Europe/Berlin",
    "ScalableTargetAction": {"MinCapacity": 3, "MaxCapacity": 8},
}
TARGET = {
    "MinCapacity": 1,
    "MaxCapacity": 2,
    "ServiceNamespace": "sagemaker",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    "ResourceId": "endpoint/any/variant/AllTraffic",
    "ScheduledActions": [ACTION],
}
TRACKING = {
    "PredefinedMetricSpecification": {
        "PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    },
    "TargetValue": 7.5,
    "ScaleInCooldown": 300,
    "ScaleOutCooldown": 300,
}
POLICY = {
    "PolicyName": "FollowTheLoad",
    "PolicyType": "TargetTrackingScaling",
    "ScalingTargetId": {"Ref": "Target"},
    "TargetTrackingScalingPolicyConfiguration": TRACKING,
}


@pytest.fixture(scope="module")
def world(empty_world: World) -> World:
    resources = {
        "Target": {"Type": "AWS::ApplicationAutoScaling::ScalableTarget", "Properties": TARGET},
        "Policy": {"Type": "AWS::ApplicationAutoScaling::ScalingPolicy", "Properties": POLICY},
    }
    assert empty_world.create("Scaling", {"Resources": resources})["StackStatus"] == "CREATE_COMPLETE"
    return empty_world


def answers(world: World, kind: str) -> list[Any]:
    return [
        getattr(world.cloud.client(service), operation)(**parameters("", {}))
        for service, operation, parameters in READS[f"AWS::ApplicationAutoScaling::{kind}"]
    ]


def test_every_property_of_target_and_schedule_is_held(world: World) -> None:
    assert missing_from(TARGET, answers(world, "ScalableTarget")) == []


def test_the_policy_tracks_the_metric_in_high_resolution(world: World) -> None:
    assert missing_from(TRACKING, answers(world, "ScalingPolicy")) == []


def test_the_schedule_goes_with_the_target(world: World) -> None:
    client = world.cloud.client("application-autoscaling")
    (made,) = client.describe_scheduled_actions(ServiceNamespace="sagemaker")["ScheduledActions"]
    assert (made["ResourceId"], made["ScheduledActionName"]) == (TARGET["ResourceId"], "Schedule1")
    world.cloud.client("cloudformation").delete_stack(StackName="Scaling")
    world.cloud.client("cloudformation").get_waiter("stack_delete_complete").wait(
        StackName="Scaling", WaiterConfig={"Delay": 0.1, "MaxAttempts": 100}
    )
    assert client.describe_scheduled_actions(ServiceNamespace="sagemaker")["ScheduledActions"] == []
    assert client.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []
