"""What differs between stages, and nothing else: one frozen dataclass per concern that checks itself.

A broken rule raises SettingsError, which names the setting, the rule and the value received.
"""

import re
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_logs as logs

from stacks.instance_types import EC2_TYPE, SAGEMAKER_TYPE, has_nvme_disks, runtime_for, supports_bfloat16


class SettingsError(ValueError):
    """A setting breaks a rule; the text names setting, rule and value."""


def require(holds: bool, rule: str, value: object) -> None:
    """Raise SettingsError with the rule and the value received unless the rule holds."""
    if not holds:
        raise SettingsError(f"{rule}; received {value!r}")


def between(low: float, high: float, *, default: float | None) -> Any:
    """Return a field with inclusive bounds, in the field's own unit; None passes where the field's type allows it."""
    return field(default=default, metadata={"bounds": (low, high)})


def like(pattern: str, what: str, *, default: str | None) -> Any:
    """Return a text field that must match the whole pattern; `what` describes it in the error."""
    return field(default=default, metadata={"pattern": pattern, "what": what})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The base of all settings; it checks each field that `between` or `like` made."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            name = f"{type(self).__name__}.{each.name}"
            if value is None and "None" in str(each.type):
                continue
            if "bounds" in each.metadata:
                _check_bounds(name, value, *each.metadata["bounds"])
            if "pattern" in each.metadata:
                fits = isinstance(value, str) and re.fullmatch(each.metadata["pattern"], value) is not None
                require(fits, f"{name} must be {each.metadata['what']}", value)


def _check_bounds(name: str, value: object, low: float, high: float) -> None:
    kinds = (int, float) if isinstance(low, float) else (int,)
    number = isinstance(value, kinds) and not isinstance(value, bool)
    rule = f"{name} must be a {'number' if float in kinds else 'whole number'} from {low} to {high}"
    require(number and low <= value <= high, rule, value)  # type: ignore[operator]


def _sagemaker_type(default: str) -> str:
    return like(SAGEMAKER_TYPE, "a SageMaker instance type such as 'ml.m5.xlarge'", default=default)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """The pipeline's jobs. `instance_types` are all that the pipeline's parameter and its role allow."""

    instance_type: str = _sagemaker_type("ml.m5.xlarge")
    instance_types: tuple[str, ...] = ("ml.m5.xlarge", "ml.m5.2xlarge", "ml.m5.4xlarge", "ml.c5.4xlarge")
    processing_instance_type: str = _sagemaker_type("ml.m5.xlarge")
    instance_count: int = between(1, 20, default=1)
    multi_instance_count: int = between(2, 20, default=4)
    volume_gib: int = between(1, 16384, default=50)
    volume_key: bool = True  # False allows GPU types: their NVMe disks are encrypted by the hardware and take no key
    max_runtime_hours: int = between(1, 120, default=24)
    max_wait_hours: int = between(1, 240, default=48)  # spot: the run itself and the waiting for capacity
    parallel_trials: int = between(1, 10, default=1)  # TuneTrials of 1 up to this less one would be refused
    # The lower end of the test accuracy's 95 % interval must reach this.
    accuracy_threshold: float = between(0.0, 1.0, default=0.75)
    # So must the mean recall of the ten worst classes. Of 133 classes with six test images each a model of 80 to 90 %
    # whose classes differ as breeds do (deviation 0.15) stays above 0.2 in 99 of 100 draws, one that never finds ten
    # of them has 0: a tenth tells a lost group of classes from bad luck with six images.
    worst_classes_threshold: float = between(0.0, 1.0, default=0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for type_ in self.instance_types:
            fits = re.fullmatch(SAGEMAKER_TYPE, type_) is not None
            require(fits, "TrainingSettings.instance_types must be SageMaker instance types", type_)
        known = self.instance_type in self.instance_types
        require(known, f"TrainingSettings.instance_type must be one of {self.instance_types}", self.instance_type)
        enough = self.max_wait_hours >= self.max_runtime_hours
        require(enough, "TrainingSettings.max_wait_hours must be at least max_runtime_hours", self.max_wait_hours)
        nvme = [type_ for type_ in (*self.instance_types, self.processing_instance_type) if has_nvme_disks(type_)]
        rule = "TrainingSettings.volume_key must be False with types of NVMe disks (SageMaker refuses a key for them)"
        require(not (self.volume_key and nvme), rule, nvme)


@dataclass(frozen=True, kw_only=True)
class CanarySettings(Settings):
    """The canary of a release: `percent` of the capacity first and, after `bake_seconds`, all of it."""

    percent: int = between(1, 50, default=50)
    bake_seconds: int = between(60, 3600, default=600)
    rollback_latency_milliseconds: int = between(1, 60_000, default=3000)  # 95th percentile of the model's own time
    rollback_error_percent: int = between(1, 100, default=5)  # of the requests in a minute, from three errors on


@dataclass(frozen=True, kw_only=True)
class ScheduledCapacity(Settings):
    """Bounds of the fleet from each time that `cron` names until the time of another schedule."""

    cron: str = like(r"\S+( \S+){5}", "six fields such as '0 7 ? * MON-FRI *' (minute first, year last)", default=None)
    timezone: str = "Etc/UTC"
    min_instances: int = between(1, 1000, default=None)
    max_instances: int = between(1, 1000, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        room = self.max_instances >= self.min_instances
        require(room, f"ScheduledCapacity.max_instances must be at least {self.min_instances}", self.max_instances)


# What the server computes with each runtime.
_PRECISIONS = {
    "openvino": ("auto", "float32", "bfloat16", "int8"),
    "onnxruntime": ("auto", "float32"),
    "torch": ("auto", "float32", "bfloat16"),
}


@dataclass(frozen=True, kw_only=True)
class HostingSettings(Settings):
    """The endpoint and how it scales. `canary` None: all traffic moves at once."""

    instance_type: str = _sagemaker_type("ml.m5.xlarge")
    runtime: str = like("openvino|onnxruntime|torch", "openvino, onnxruntime or torch", default="openvino")
    precision: str = "auto"
    threads: int | None = between(1, 192, default=None)  # None: all cores
    min_instances: int = between(1, 1000, default=2)
    max_instances: int = between(1, 1000, default=4)
    # `concurrency`: requests in flight in an instance, each 10 s; `invocations`: of an instance in a minute.
    scaling_metric: str = like("concurrency|invocations", "concurrency or invocations", default="concurrency")
    scaling_target: float | None = between(0.1, 1_000_000.0, default=None)  # None: from what `kennel loadtest` measured
    safety_factor: float = between(0.1, 1.0, default=0.7)  # of the measured rate: the rest is for what comes unevenly
    # Until a new instance answers: before that the metric cannot show what it brings.
    scale_out_cooldown_seconds: int = between(0, 3600, default=300)
    scale_in_cooldown_seconds: int = between(0, 3600, default=300)
    schedule: tuple[ScheduledCapacity, ...] = ()
    capture_percent: int = between(0, 100, default=10)
    volume_gib: int = between(1, 512, default=20)
    canary: CanarySettings | None = field(default_factory=CanarySettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        room = self.max_instances >= self.min_instances
        require(room, f"HostingSettings.max_instances must be at least {self.min_instances}", self.max_instances)
        least = min([self.min_instances, *(each.min_instances for each in self.schedule)])
        require(self.canary is None or least >= 2, "HostingSettings.canary needs min_instances of at least 2", least)
        scales = not self.schedule or self.max_instances > self.min_instances
        rule = f"HostingSettings.schedule needs max_instances above min_instances ({self.min_instances})"
        require(scales, rule, self.max_instances)
        self._check_arithmetic()

    def _check_arithmetic(self) -> None:
        fits = runtime_for(self.instance_type)
        kinds = "x86 (m5, c6i, m7i ...), Graviton (c7g, m8g ...) or a GPU that CUDA 13 knows (g4dn, g5, g6 ...)"
        require(fits is not None, f"HostingSettings.instance_type must be {kinds}", self.instance_type)
        require(self.runtime == fits, f"HostingSettings.runtime must be {fits} on {self.instance_type}", self.runtime)
        known = _PRECISIONS[self.runtime]
        require(self.precision in known, f"HostingSettings.precision must be one of {known}", self.precision)
        fast = self.precision != "bfloat16" or supports_bfloat16(self.instance_type)
        rule = f"HostingSettings.precision cannot be bfloat16 on {self.instance_type}, which does not multiply it"
        require(fast, f"{rule} (m7i, c7i, r7i, g5, g6 ... do)", self.precision)


@dataclass(frozen=True, kw_only=True)
class ClassifySettings(Settings):
    """The Lambda and its API. A concurrency of None: none is reserved or provisioned.

    `canary_minutes` None: a new version gets all calls at once.
    """

    memory_mib: int = between(128, 10240, default=512)
    timeout_seconds: int = between(3, 29, default=29)  # an HTTP API gives up after 30 s
    provisioned_concurrency: int | None = between(1, 100_000, default=3)
    reserved_concurrency: int | None = between(1, 100_000, default=100)
    requests_per_second: int = between(1, 10_000, default=100)
    request_burst: int = between(1, 10_000, default=200)
    # A tenth of the calls for so long, then all. Metrics come a minute or two late, and an alarm takes two of them.
    canary_minutes: int | None = 10
    rollback_duration_milliseconds: int = between(1, 29_000, default=4000)  # 95th percentile of a new version's calls

    def __post_init__(self) -> None:
        super().__post_init__()
        reserved, provisioned = self.reserved_concurrency, self.provisioned_concurrency
        room = reserved is None or provisioned is None or provisioned <= reserved
        require(room, f"ClassifySettings.provisioned_concurrency must be at most {reserved}", provisioned)
        predefined = (5, 10, 15, 30, None)  # of CodeDeploy's canaries of 10 percent
        known = self.canary_minutes in predefined and not isinstance(self.canary_minutes, bool)
        require(known, f"ClassifySettings.canary_minutes must be one of {predefined}", self.canary_minutes)
        # While traffic shifts both versions have theirs.
        room = self.canary_minutes is None or reserved is None or 2 * (provisioned or 0) <= reserved
        rule = f"ClassifySettings.provisioned_concurrency must be at most half of {reserved} with canary_minutes"
        require(room, rule, provisioned)


@dataclass(frozen=True, kw_only=True)
class OperationsSettings(Settings):
    """Alarms and budget. `email` None: the alarm topic has no subscriber until one is added."""

    email: str | None = like(r"[^@\s]+@[^@\s]+\.[^@\s]+", "an e-mail address or None", default=None)
    budget_usd_per_month: int = between(1, 1_000_000, default=1500)
    endpoint_errors_per_minute: int = between(1, 1_000_000, default=5)
    endpoint_latency_milliseconds: int = between(1, 60_000, default=2000)  # 95th percentile of the model's own time
    endpoint_cpu_percent: int = between(1, 100, default=85)  # of all cores of an instance
    classify_duration_milliseconds: int = between(1, 29_000, default=10_000)


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings):
    """The VPC: isolated subnets only, one per availability zone."""

    cidr: str = "10.40.0.0/16"
    zones: int = between(2, 3, default=2)
    # Names, such as ("us-east-1a", "us-east-1b"), for one account; (): the region's first `zones`.
    availability_zones: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            fits = 16 <= IPv4Network(self.cidr).prefixlen <= 24
        except ValueError:
            fits = False
        require(fits, "NetworkSettings.cidr must be an IPv4 block from /16 to /24, such as '10.40.0.0/16'", self.cidr)
        names = self.availability_zones
        chosen = not names or len({*names}) == len(names) == self.zones
        require(chosen, f"NetworkSettings.availability_zones must be {self.zones} different zones or none", names)


@dataclass(frozen=True, kw_only=True)
class WorkbenchSettings(Settings):
    """The notebook and the EC2 training launcher."""

    notebook_instance_type: str = _sagemaker_type("ml.t3.medium")
    notebook_volume_gib: int = between(5, 16384, default=20)
    notebook_idle_minutes: int = between(10, 1440, default=60)
    trainer_instance_type: str = like(EC2_TYPE, "an EC2 instance type such as 'g4dn.xlarge'", default="g4dn.xlarge")
    trainer_volume_gib: int = between(100, 16384, default=150)  # the Deep Learning AMI alone takes about half
    trainer_max_hours: int = between(1, 120, default=12)


@dataclass(frozen=True, kw_only=True)
class StageSettings(Settings):
    """One stage. `network` None: no VPC. `workbench` None: no notebook and no EC2 launcher."""

    # Literal name of endpoint, pipeline and model package group.
    name: str = like(r"[a-z](-?[a-z0-9]){0,31}", "1 to 32 lower-case letters, digits, single hyphens", default=None)
    # Every stack is `<stack_prefix>-<stage>-<stack>`: another team may have a `Dev-Data` in the same account.
    stack_prefix: str = like(
        r"[A-Za-z][A-Za-z0-9]{0,31}", "1 to 32 letters and digits, a letter first", default="Kennel"
    )
    removable: bool
    approval_status: str = like("Approved|PendingManualApproval", "Approved or PendingManualApproval", default=None)
    log_retention: logs.RetentionDays
    training: TrainingSettings = field(default_factory=TrainingSettings)
    hosting: HostingSettings = field(default_factory=HostingSettings)
    classify: ClassifySettings = field(default_factory=ClassifySettings)
    operations: OperationsSettings = field(default_factory=OperationsSettings)
    network: NetworkSettings | None = None
    workbench: WorkbenchSettings | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        reachable = self.workbench is None or self.network is not None
        require(reachable, "StageSettings.workbench needs network: its notebook has no internet access", self.network)

    @property
    def removal_policy(self) -> cdk.RemovalPolicy:
        """Return what becomes of resources that hold data when their stack is deleted.

        A stack whose first deployment fails keeps nothing: under its literal name it would be in the next one's way.
        """
        return cdk.RemovalPolicy.DESTROY if self.removable else cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE


DEV = StageSettings(
    name="kennel-dev",
    removable=True,
    approval_status="Approved",
    log_retention=logs.RetentionDays.ONE_WEEK,
    hosting=HostingSettings(
        instance_type="ml.m5.large", min_instances=1, max_instances=2, capture_percent=100, canary=None
    ),
    classify=ClassifySettings(provisioned_concurrency=None, reserved_concurrency=None, canary_minutes=None),
    operations=OperationsSettings(budget_usd_per_month=200),
)
PROD = StageSettings(
    name="kennel-prod",
    removable=False,
    approval_status="PendingManualApproval",
    log_retention=logs.RetentionDays.ONE_YEAR,
    network=NetworkSettings(),
    workbench=WorkbenchSettings(),
)
