"""Settings refuse what could not be deployed, and say which rule was broken by what."""

from collections.abc import Callable
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_logs as logs

from stacks.config import (
    DEV,
    PROD,
    CanarySettings,
    ClassifySettings,
    HostingSettings,
    NetworkSettings,
    OperationsSettings,
    ScheduledCapacity,
    SettingsError,
    StageSettings,
    TrainingSettings,
    WorkbenchSettings,
)
from stacks.instance_types import has_nvme_disks


def stage(**changes: Any) -> StageSettings:
    plain: dict[str, Any] = {"name": "kennel-test", "removable": True, "approval_status": "Approved"}
    return StageSettings(**(plain | {"log_retention": logs.RetentionDays.ONE_WEEK} | changes))


def weekdays(**changes: Any) -> ScheduledCapacity:
    plain: dict[str, Any] = {"cron": "0 7 ? * MON-FRI *", "min_instances": 3, "max_instances": 8}
    return ScheduledCapacity(**(plain | changes))


BROKEN: list[tuple[Callable[[], object], str]] = [
    (
        lambda: TrainingSettings(instance_type="m5.xlarge"),
        "TrainingSettings.instance_type must be a SageMaker instance",
    ),
    (
        lambda: TrainingSettings(instance_type="ml.m7i.large"),
        r"must be one of \('ml.m5.xlarge'.*received 'ml.m7i.large'",
    ),
    (lambda: TrainingSettings(instance_types=("ml.m5.xlarge", "m5")), "instance_types must be .*received 'm5'"),
    (lambda: TrainingSettings(instance_count=0), "instance_count must be a whole number from 1 to 20; received 0"),
    (lambda: TrainingSettings(instance_count=1.5), "whole number from 1 to 20; received 1.5"),  # type: ignore[arg-type]
    (lambda: TrainingSettings(instance_count=True), "whole number from 1 to 20; received True"),
    (
        lambda: TrainingSettings(accuracy_threshold=75),
        "accuracy_threshold must be a number from 0.0 to 1.0; received 75",
    ),
    (lambda: TrainingSettings(accuracy_threshold=float("nan")), "from 0.0 to 1.0; received nan"),
    (lambda: TrainingSettings(max_wait_hours=23), "max_wait_hours must be at least max_runtime_hours; received 23"),
    (
        lambda: TrainingSettings(instance_types=("ml.m5.xlarge", "ml.g5.xlarge")),
        r"volume_key must be False with types of NVMe disks.*received \['ml.g5.xlarge'\]",
    ),
    (
        lambda: ClassifySettings(canary_minutes=7),
        r"ClassifySettings.canary_minutes must be one of \(5, 10, 15, 30, None\); received 7",
    ),
    (
        lambda: ClassifySettings(provisioned_concurrency=51),
        "provisioned_concurrency must be at most half of 100 with canary_minutes; received 51",
    ),
    (lambda: CanarySettings(percent=51), "CanarySettings.percent must be a whole number from 1 to 50; received 51"),
    (lambda: HostingSettings(min_instances=5), "max_instances must be at least 5; received 4"),
    (lambda: HostingSettings(runtime="tflite"), "runtime must be openvino, onnxruntime or torch; received 'tflite'"),
    (lambda: HostingSettings(instance_type="ml.m8g.large"), "runtime must be onnxruntime on ml.m8g.large"),
    (
        lambda: HostingSettings(instance_type="ml.g5.xlarge"),
        "runtime must be torch on ml.g5.xlarge",
    ),
    (lambda: HostingSettings(runtime="torch"), "runtime must be openvino on ml.m5.xlarge; received 'torch'"),
    (lambda: HostingSettings(instance_type="ml.inf2.xlarge"), "must be x86 .*received 'ml.inf2.xlarge'"),
    (lambda: HostingSettings(instance_type="ml.p3.2xlarge"), "x86 .*, Graviton .* received 'ml.p3.2xlarge'"),
    (
        lambda: HostingSettings(precision="fp16"),
        r"precision must be one of \('auto', 'float32', 'bfloat16', 'int8'\); received 'fp16'",
    ),
    (
        lambda: HostingSettings(precision="bfloat16"),
        r"cannot be bfloat16 on ml.m5.xlarge, which does not multiply it \(m7i, c7i",
    ),
    (
        lambda: HostingSettings(instance_type="ml.c7g.large", runtime="onnxruntime", precision="int8"),
        r"precision must be one of \('auto', 'float32'\); received 'int8'",
    ),
    (
        lambda: HostingSettings(instance_type="ml.g4dn.xlarge", runtime="torch", precision="bfloat16"),
        "cannot be bfloat16 on ml.g4dn.xlarge",
    ),
    (
        lambda: HostingSettings(instance_type="ml.g5.xlarge", runtime="torch", precision="int8"),
        r"precision must be one of \('auto', 'float32', 'bfloat16'\); received 'int8'",
    ),
    (lambda: HostingSettings(threads=0), "threads must be a whole number from 1 to 192; received 0"),
    (lambda: HostingSettings(scaling_metric="cpu"), "scaling_metric must be concurrency or invocations"),
    (lambda: HostingSettings(scaling_target=0), "scaling_target must be a number from 0.1 to 1000000.0; received 0"),
    (lambda: HostingSettings(safety_factor=1.1), "safety_factor must be a number from 0.1 to 1.0; received 1.1"),
    (lambda: HostingSettings(max_instances=2, schedule=(weekdays(),)), r"schedule needs max_instances above .*\(2\)"),
    (
        lambda: HostingSettings(schedule=(weekdays(min_instances=1),)),
        "canary needs min_instances of at least 2; received 1",
    ),
    (lambda: weekdays(cron="0 7 * * *"), "cron must be six fields such as '0 7 .*received '0 7 \\* \\* \\*'"),
    (lambda: weekdays(max_instances=2), "ScheduledCapacity.max_instances must be at least 3; received 2"),
    (lambda: HostingSettings(min_instances=1), "canary needs min_instances of at least 2; received 1"),
    (lambda: ClassifySettings(timeout_seconds=30), "timeout_seconds must be a whole number from 3 to 29; received 30"),
    (lambda: ClassifySettings(reserved_concurrency=2), "provisioned_concurrency must be at most 2; received 3"),
    (lambda: ClassifySettings(provisioned_concurrency=0), "provisioned_concurrency must be .* from 1 .*received 0"),
    (lambda: OperationsSettings(email="nobody"), "email must be an e-mail address or None; received 'nobody'"),
    (lambda: NetworkSettings(cidr="10.0.0.0/8"), "cidr must be an IPv4 block from /16 to /24.*received '10.0.0.0/8'"),
    (lambda: NetworkSettings(cidr="10.40.0.1/16"), "cidr must be an IPv4 block .*received '10.40.0.1/16'"),
    (lambda: NetworkSettings(cidr="10.0.999.0/16"), "cidr must be an IPv4 block .*received '10.0.999.0/16'"),
    (
        lambda: NetworkSettings(availability_zones=("eu-west-1a",)),
        r"availability_zones must be 2 different zones or none; received \('eu-west-1a',\)",
    ),
    (
        lambda: NetworkSettings(availability_zones=("eu-west-1a", "eu-west-1a")),
        "availability_zones must be 2 different zones or none",
    ),
    (
        lambda: WorkbenchSettings(trainer_instance_type="ml.g4dn.xlarge"),
        "trainer_instance_type must be an EC2 instance",
    ),
    (lambda: stage(name="Kennel_Test"), "StageSettings.name must be 1 to 32 lower-case .*received 'Kennel_Test'"),
    (lambda: stage(stack_prefix="Two-Words"), "StageSettings.stack_prefix must be 1 to 32 letters and digits"),
    (lambda: stage(name=None), "StageSettings.name must be .*received None"),
    (lambda: stage(approval_status="approved"), "approval_status must be Approved or PendingManualApproval"),
    (lambda: stage(workbench=WorkbenchSettings()), "workbench needs network: its notebook has no internet access"),
]


@pytest.mark.parametrize(("make", "message"), BROKEN)
def test_a_broken_setting_is_refused_with_rule_and_value(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make()


def test_without_a_volume_key_types_with_nvme_disks_are_allowed() -> None:
    gpu = TrainingSettings(instance_type="ml.g5.xlarge", instance_types=("ml.g5.xlarge",), volume_key=False)
    assert gpu.instance_types == ("ml.g5.xlarge",)


@pytest.mark.parametrize(
    "type_", ["ml.g4dn.xlarge", "ml.g6.2xlarge", "ml.p4d.24xlarge", "ml.m5d.large", "ml.c6gd.xlarge"]
)
def test_types_with_local_disks_are_known(type_: str) -> None:
    assert has_nvme_disks(type_)


@pytest.mark.parametrize("type_", ["ml.m5.xlarge", "ml.c5.4xlarge", "ml.p3.2xlarge", "ml.m7i.large", "ml.c6g.xlarge"])
def test_types_without_local_disks_are_known(type_: str) -> None:
    assert not has_nvme_disks(type_)


@pytest.mark.parametrize(
    ("type_", "runtime", "precision"),
    [
        ("ml.m5.xlarge", "openvino", "int8"),
        ("ml.c6i.large", "openvino", "auto"),
        ("ml.m7i.large", "openvino", "bfloat16"),
        ("ml.c7i.large", "openvino", "bfloat16"),
        ("ml.c6g.large", "onnxruntime", "auto"),
        ("ml.r7gd.large", "onnxruntime", "float32"),
        ("ml.g4dn.xlarge", "torch", "auto"),
        ("ml.g5.xlarge", "torch", "bfloat16"),
        ("ml.p5.48xlarge", "torch", "float32"),
    ],
)
def test_each_kind_of_processor_has_its_runtime_and_the_precisions_that_it_multiplies(
    type_: str, runtime: str, precision: str
) -> None:
    assert HostingSettings(instance_type=type_, runtime=runtime, precision=precision).runtime == runtime


def test_scheduled_bounds_may_go_beyond_the_plain_ones() -> None:
    assert HostingSettings(schedule=(weekdays(),)).schedule[0].max_instances == 8
    assert HostingSettings(canary=None, min_instances=1, schedule=(weekdays(min_instances=1),)).schedule


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(AttributeError):
        PROD.name = "other"  # type: ignore[misc]


def test_prod_is_the_reference_system() -> None:
    training, hosting, classify = PROD.training, PROD.hosting, PROD.classify
    assert (training.instance_type, training.instance_count, training.multi_instance_count) == ("ml.m5.xlarge", 1, 4)
    assert (hosting.min_instances, hosting.max_instances) == (2, 4)
    assert (classify.provisioned_concurrency, classify.reserved_concurrency) == (3, 100)
    assert PROD.workbench == WorkbenchSettings(
        notebook_instance_type="ml.t3.medium", trainer_instance_type="g4dn.xlarge"
    )
    assert (PROD.approval_status, PROD.removal_policy) == (
        "PendingManualApproval",
        cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
    )
    assert hosting.canary is not None and PROD.network is not None


def test_dev_is_cheap_and_leaves_nothing_behind() -> None:
    assert (DEV.hosting.min_instances, DEV.hosting.max_instances, DEV.hosting.canary) == (1, 2, None)
    assert (DEV.classify.provisioned_concurrency, DEV.classify.reserved_concurrency) == (None, None)
    assert (DEV.network, DEV.workbench) == (None, None)
    assert (DEV.approval_status, DEV.removal_policy) == ("Approved", cdk.RemovalPolicy.DESTROY)
