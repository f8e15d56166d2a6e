"""Application Auto Scaling: held, not enacted (the number of servers behind an endpoint stays)."""

from __future__ import annotations

from kennel.rehearsal.cloud.clients import admin
from kennel.rehearsal.cloud.cloudformation.types.resource import Made, Properties, Row, conform


def _target_id(made: Made) -> str:
    return "|".join(made.wanted[key] for key in ("ResourceId", "ScalableDimension", "ServiceNamespace"))


def _policy(properties: Properties) -> Properties:
    rest = {key: value for key, value in properties.items() if key != "ScalingTargetId"}
    if "ScalingTargetId" in properties:
        parts = properties["ScalingTargetId"].split("|")
        rest |= dict(zip(("ResourceId", "ScalableDimension", "ServiceNamespace"), parts, strict=True))
    return rest


def _identity(made: Made) -> Properties:
    return {key: made.wanted[key] for key in ("ResourceId", "ScalableDimension", "ServiceNamespace")}


def _schedule(made: Made) -> None:
    """Scheduled actions are properties of the target in a template, and resources of their own in the API."""
    client = admin("application-autoscaling")
    shape = client.meta.service_model.operation_model("PutScheduledAction").input_shape
    for action in made.wanted.get("ScheduledActions", []):
        client.put_scheduled_action(**conform(shape, {**_identity(made), **action}))


def _forget_target(made: Made) -> None:
    client = admin("application-autoscaling")
    for action in made.wanted.get("ScheduledActions", []):
        client.delete_scheduled_action(ScheduledActionName=action["ScheduledActionName"], **_identity(made))
    client.deregister_scalable_target(**_identity(made))


def _forget_policy(made: Made) -> None:
    asked = _policy(made.wanted)
    keys = ("PolicyName", "ResourceId", "ScalableDimension", "ServiceNamespace")
    admin("application-autoscaling").delete_scaling_policy(**{key: asked[key] for key in keys})


ROWS = [
    Row(
        type="AWS::ApplicationAutoScaling::ScalableTarget",
        service="application-autoscaling",
        create="RegisterScalableTarget",
        ref=_target_id,
        after=_schedule,
        delete=_forget_target,
    ),
    Row(
        type="AWS::ApplicationAutoScaling::ScalingPolicy",
        service="application-autoscaling",
        create="PutScalingPolicy",
        name="PolicyName",
        shape=_policy,
        ref=lambda made: str(made.answer["PolicyARN"]),
        delete=_forget_policy,
    ),
]
