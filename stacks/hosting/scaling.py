"""How the endpoint scales: the scalable target, its policy, and the target value from a measured capacity.

`kennel loadtest --out stacks/capacity.json` writes the measurements, one for each instance type; the one under ""
comes from a machine that is no SageMaker instance and serves until the stage's own type is measured.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from stacks.config import HostingSettings, ScheduledCapacity, SettingsError
from stacks.hosting.model import VARIANT
from training.hyperparameters import Hyperparameters

# What each setting tracks. The first is CloudWatch's ConcurrentRequestsPerModel, queued requests included, published
# each 10 s (the second each minute), for real-time variants without inference components. It speeds up growing only:
# shrinking takes the same quarter of an hour with both (Developer Guide, Define a scaling policy).
_METRICS = {
    "concurrency": "SageMakerVariantConcurrentRequestsPerModelHighResolution",
    "invocations": "SageMakerVariantInvocationsPerInstance",  # per minute
}


class EndpointScaling(Construct):
    """Target tracking on the load of an instance; nothing is registered where the bounds leave no room to scale."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        settings: HostingSettings,
        endpoint: sagemaker.CfnEndpoint,
    ) -> None:
        super().__init__(scope, id_)
        if settings.max_instances == settings.min_instances:
            return
        measured = read_capacity(settings.instance_type)
        for warning, text in capacity_warnings(settings, measured).items():
            cdk.Annotations.of(self).add_warning_v2(warning, text)
        # The L2 target would make a role that nobody assumes: SageMaker's targets use the service-linked one.
        target = scaling.CfnScalableTarget(
            self,
            "Target",
            service_namespace="sagemaker",
            scalable_dimension="sagemaker:variant:DesiredInstanceCount",
            resource_id=f"endpoint/{endpoint.endpoint_name}/variant/{VARIANT}",
            min_capacity=settings.min_instances,
            max_capacity=settings.max_instances,
            scheduled_actions=[_action(number, each) for number, each in enumerate(settings.schedule, 1)] or None,
        )
        target.node.add_dependency(endpoint)
        scaling.CfnScalingPolicy(
            self,
            "Policy",
            policy_name="FollowTheLoad",
            policy_type="TargetTrackingScaling",
            scaling_target_id=target.ref,
            target_tracking_scaling_policy_configuration=_tracking(settings, scaling_target(settings, measured)),
        )


def _tracking(
    settings: HostingSettings, target: float
) -> scaling.CfnScalingPolicy.TargetTrackingScalingPolicyConfigurationProperty:
    return scaling.CfnScalingPolicy.TargetTrackingScalingPolicyConfigurationProperty(
        predefined_metric_specification=scaling.CfnScalingPolicy.PredefinedMetricSpecificationProperty(
            predefined_metric_type=_METRICS[settings.scaling_metric]
        ),
        target_value=target,
        scale_out_cooldown=settings.scale_out_cooldown_seconds,
        scale_in_cooldown=settings.scale_in_cooldown_seconds,
    )


def _action(number: int, each: ScheduledCapacity) -> scaling.CfnScalableTarget.ScheduledActionProperty:
    return scaling.CfnScalableTarget.ScheduledActionProperty(
        scheduled_action_name=f"Schedule{number}",
        schedule=f"cron({each.cron})",
        timezone=each.timezone,
        scalable_target_action=scaling.CfnScalableTarget.ScalableTargetActionProperty(
            min_capacity=each.min_instances, max_capacity=each.max_instances
        ),
    )


FILE = Path(__file__).parents[1] / "capacity.json"
_SECONDS = 60  # in the minute of SageMakerVariantInvocationsPerInstance
# The metric is the most that were in flight in ten seconds, so one lonely request makes it 1, and scaling in waits
# until it stays a tenth below the target: a fleet whose target is 1 would never shrink.
_LEAST_CONCURRENCY = 2.0
_UNMEASURED_RATE = 1.0  # requests a second: dear rather than slow


@dataclass(frozen=True)
class Load:
    """A rate at which the p99 target was met; `peak`: the most requests in flight within ten seconds, on average."""

    rate: float
    peak: float


@dataclass(frozen=True)
class Measured:
    """One instance's measurement; `loads` ascend in rate, and the last is the highest that met the p99 target."""

    instance_type: str
    architecture: str
    image_size: int | None  # None: unknown
    runtime: str
    precision: str
    loads: tuple[Load, ...]


def read_capacity(instance_type: str, file: Path = FILE) -> Measured | None:
    """Return the measurement of that type, else of another machine, else None; raise SettingsError if it is broken."""
    if not file.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["measured"]
        type_ = instance_type if instance_type in found else ""
        return _measured(type_, found[type_]) if type_ in found else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        hint = f"write it anew: kennel loadtest --out stacks/{file.name}"
        raise SettingsError(
            f"{file.name} was not written by `kennel loadtest` ({type(error).__name__}: {error}); {hint}"
        ) from None


def _measured(instance_type: str, entry: dict[str, Any]) -> Measured:
    loads = sorted((float(one["requests_per_second"]), float(one["concurrency_peak"])) for one in entry["loads"])
    if not loads or loads[0][0] <= 0:
        raise ValueError("it has no load that met the target")
    model = entry["model"]
    return Measured(
        instance_type=instance_type,
        architecture=str(model["architecture"]),
        image_size=None if model["image_size"] is None else int(model["image_size"]),
        runtime=str(entry["runtime"]),
        precision=str(entry["precision"]),
        loads=tuple(Load(*each) for each in loads),
    )


def scaling_target(settings: HostingSettings, measured: Measured | None) -> float:
    """Return the target in the unit of the metric: requests in flight in an instance, or its invocations per minute."""
    if settings.scaling_target is not None:
        return settings.scaling_target
    rate = measured.loads[-1].rate * settings.safety_factor if measured else _UNMEASURED_RATE
    if settings.scaling_metric == "invocations":
        return round(rate * _SECONDS, 1)
    return max(_LEAST_CONCURRENCY, round(_peak(measured.loads, rate), 1)) if measured else _LEAST_CONCURRENCY


def _peak(loads: tuple[Load, ...], rate: float) -> float:
    """Return the requests in flight at that rate, interpolated linearly between the measured loads on both sides.

    A share of what is in flight at the highest rate would be wrong: queues grow much faster than the rate.
    """
    for low, high in itertools.pairwise((Load(0.0, 0.0), *loads)):
        if rate <= high.rate:
            return low.peak + (high.peak - low.peak) * (rate - low.rate) / (high.rate - low.rate)
    return loads[-1].peak


def capacity_warnings(settings: HostingSettings, measured: Measured | None) -> dict[str, str]:
    """Return warnings that the derived target may not fit, by the id under which each can be acknowledged."""
    if settings.scaling_target is not None:
        return {}
    how = f"measure on {settings.instance_type}: kennel loadtest --stage STAGE --out stacks/{FILE.name}"
    if measured is None:
        return {"kennel:capacity-missing": f"No measurement of what {settings.instance_type} holds: {how}"}
    trained = Hyperparameters()
    size = measured.image_size or trained.image_size
    found = {
        "kennel:capacity-instance-type": (
            measured.instance_type != settings.instance_type,
            f"The scaling target comes from another machine than {settings.instance_type} and is not scaled to it",
        ),
        "kennel:capacity-model": (
            (measured.architecture, size) != (trained.model, trained.image_size),
            f"The scaling target was measured with {measured.architecture} at {size} pixels, but the pipeline trains "
            f"{trained.model} at {trained.image_size}",
        ),
        "kennel:capacity-arithmetic": (
            measured.runtime != settings.runtime or settings.precision not in ("auto", measured.precision),
            f"The scaling target was measured with {measured.runtime} in {measured.precision}, but the stage serves "
            f"with {settings.runtime} in {settings.precision}",
        ),
    }
    return {id_: f"{text}: {how}" for id_, (wrong, text) in found.items() if wrong}
