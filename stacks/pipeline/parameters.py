"""The pipeline's parameters; those of the hyperparameters follow from the training program's own declaration."""

from collections.abc import Collection
from dataclasses import Field, fields
from typing import Any

from stacks.config import TrainingSettings
from stacks.pipeline.language import get, join
from training.hyperparameters import Hyperparameters

_TYPES = {str: "String", int: "Integer", float: "Float"}


def parameters(settings: TrainingSettings, approval_status: str, runtime: str) -> list[dict[str, Any]]:
    """All of them, each but DataManifest with a default; that of Runtime is what the stage serves with."""
    of_stage = {"runtime": runtime}
    return [
        {"Name": "DataManifest", "Type": "String"},
        _parameter("InstanceType", settings.instance_type, settings.instance_types),
        _parameter("InstanceCount", settings.instance_count),
        _parameter("Spot", "false", ("true", "false")),
        _parameter("TuneTrials", 0),
        _parameter("Duplicates", "fail", ("fail", "remove", "report")),
        *(
            _parameter(_title(each.name), of_stage.get(each.name, each.default), each.metadata["choices"])
            for each in _settable()
        ),
        _parameter("AccuracyThreshold", settings.accuracy_threshold),
        _parameter("WorstClassesThreshold", settings.worst_classes_threshold),
        _parameter("ApprovalStatus", approval_status, ("Approved", "PendingManualApproval", "Rejected")),
    ]


def hyperparameters(*, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Name -> the parameter of that name as text, for every hyperparameter that has one and is not left out."""
    names = [each.name for each in _settable() if each.name not in leave_out]
    return {name: join("", get(f"Parameters.{_title(name)}")) for name in names}


def _settable() -> list[Field[Any]]:
    return [each for each in fields(Hyperparameters) if each.name != "trials"]  # that one is TuneTrials


def _parameter(name: str, default: Any, choices: Collection[str] = ()) -> dict[str, Any]:
    allowed = {"EnumValues": [*choices]} if choices else {}
    return {"Name": name, "Type": _TYPES[type(default)], "DefaultValue": default, **allowed}


def _title(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
