"""What `kennel train` was asked for; it checks that its options go together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kennel.errors import KennelError
from kennel.train.choose import parameters

_AWS_ONLY = {"dataset": "DATASET", "instance_type": "--instance-type", "spot": "--spot", "settings": "--set"}
_AWS_ONLY |= {"detach": "--detach", "follow": "--follow"}
_START_ONLY = {**_AWS_ONLY, "instances": "--instances", "tune": "--tune", "duplicates": "--duplicates"}
_START_ONLY |= {"weights": "--weights", "hyperparameters": "hyperparameters"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """`hyperparameters` by field name, as texts; what was not given is None or empty."""

    hyperparameters: Mapping[str, str]
    dataset: str
    stage: str
    instances: int | None
    tune: int | None
    duplicates: str | None
    as_json: bool
    instance_type: str | None
    spot: bool
    settings: list[str] | None
    yes: bool
    detach: bool
    follow: str
    local: Path | None
    weights: Path | None
    runs: Path
    resume: str

    def __post_init__(self) -> None:
        if self.here and (wrong := self._given(_AWS_ONLY)):
            raise KennelError(f"{wrong} is for runs on AWS, not for one on this machine.")
        if self.resume and (wrong := self._given({**_START_ONLY, "local": "--local"})):
            raise KennelError(f"{wrong} does not go with --resume: a run keeps its own.")
        if self.follow and (wrong := self._given(_START_ONLY, but="follow")):
            raise KennelError(f"{wrong} does not go with --follow: that run has started.")
        if not self.here and self.weights:
            raise KennelError("On AWS the weights travel with the data: `kennel upload FOLDER --weights FILE`.")

    @property
    def here(self) -> bool:
        return self.local is not None or bool(self.resume)

    def pipeline_parameters(self) -> dict[str, str]:
        return parameters(
            self.hyperparameters,
            self.settings or [],
            InstanceType=self.instance_type,
            InstanceCount=self.instances,
            Spot="true" if self.spot else None,
            TuneTrials=self.tune,
            Duplicates=self.duplicates,
        )

    def _given(self, names: Mapping[str, str], but: str = "") -> str:
        return next((shown for name, shown in names.items() if name != but and getattr(self, name)), "")
