"""What a training run can be told, declared once: the command line, the pipeline and the record read it here.

Standard library only: the CDK app imports this module.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

MODELS = ("resnet18", "resnet34", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")


class HyperparameterError(ValueError):
    """A hyperparameter is unknown or has a value that cannot work; the text says which and what would."""


def _setting(
    default: Any, doc: str, *, choices: Sequence[str] = (), least: float = -math.inf, most: float = math.inf
) -> Any:
    return field(default=default, metadata={"help": doc, "choices": tuple(choices), "least": least, "most": most})


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Settings of one training run. SageMaker passes each as a string under the field's name."""

    model: str = _setting("resnet50", "network architecture", choices=MODELS)
    mode: str = _setting(
        "auto",
        "what learns: the new head, the whole network, or (auto) the head if there are weights",
        choices=("auto", "head", "whole"),
    )
    image_size: int = _setting(224, "side of the square that the network sees, in pixels", least=16, most=1024)
    epochs: int = _setting(10, "passes over the training split", least=1, most=10_000)
    batch_size: int = _setting(256, "images in an optimizer step, over all workers together", least=1, most=65_536)
    learning_rate: float = _setting(0.0029, "highest learning rate of the schedule", least=1e-9, most=10)
    weight_decay: float = _setting(0.01, "decoupled weight decay (AdamW)", least=0, most=1)
    label_smoothing: float = _setting(0.05, "share of the target spread over all classes", least=0, most=0.9)
    seed: int = _setting(0, "seed of splits, initial weights, order and augmentation", least=0, most=2**31 - 1)
    precision: str = _setting(
        "auto",
        "arithmetic of the network: auto takes the fastest that this hardware multiplies; int8 in head mode only",
        choices=("auto", "float32", "bfloat16", "int8"),
    )
    views: int = _setting(0, "head mode: augmented views of each training image beside the plain one", least=0, most=32)
    trials: int = _setting(
        0, "head mode: settings tried on the same features; 0 trains with those given", least=0, most=10_000
    )
    mixup: float = _setting(
        0.0, "whole mode: strength (Beta's alpha) of blending pairs of images; 0 is off", least=0, most=4
    )
    ema: float = _setting(
        0.0, "whole mode: decay per step of the averaged weights that are kept; 0 is off", least=0, most=0.99999
    )
    compile: str = _setting(
        "no", "whole mode: compile the network (minutes at the start, faster steps)", choices=("no", "yes")
    )
    abstain_coverage: float = _setting(
        0.95,
        "share of the validation images that the model answers; the least sure rest is 'none of these'",
        least=0.01,
        most=1,
    )
    abstain_precision: float = _setting(
        0.0,
        "in place of the coverage: share of the answers that must be right on validation; 0 is off",
        least=0,
        most=1,
    )

    int8: str = _setting(
        "auto",
        "whether the model is also offered in int8, where its answers stay close to float32's",
        choices=("auto", "no"),
    )
    export_agreement: float = _setting(
        0.98, "share of the validation images on which int8 must answer as float32 does", least=0, most=1
    )
    export_change: float = _setting(
        0.25, "largest change of a probability that int8 may bring on a validation image", least=0, most=1
    )
    runtime: str = _setting(
        "openvino",
        "what will serve the model: onnxruntime adds model.onnx to the artifact, torch adds model.pt2",
        choices=("openvino", "onnxruntime", "torch"),
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            _check(spec.name, getattr(self, spec.name), spec.metadata)

    @classmethod
    def from_strings(cls, values: Mapping[str, str]) -> "Hyperparameters":
        """Parse SageMaker's strings; raises HyperparameterError for an unknown name or a bad value.

        A value may be wrapped in quotes, as SDKs that write JSON values do. SageMaker's own settings
        (`sagemaker_...`, and `_tuning_objective_metric` in a tuning job) are passed over.
        """
        known = {spec.name: spec for spec in fields(cls)}
        parsed = {}
        for name, text in values.items():
            if name.startswith(("sagemaker_", "_tuning_")):
                continue
            if name not in known:
                raise HyperparameterError(f"Unknown hyperparameter {name!r}; known are {', '.join(known)}.")
            parsed[name] = _parse(name, text, type(known[name].default))
        return cls(**parsed)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings with their types, for the model's record."""
        return asdict(self)

    def to_strings(self) -> dict[str, str]:
        """Return the settings as SageMaker carries them."""
        return {name: str(value) for name, value in asdict(self).items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` one option a field (`--learning-rate`), absent by default so that it can override others."""
    for spec in fields(Hyperparameters):
        parser.add_argument(
            "--" + spec.name.replace("_", "-"),
            default=argparse.SUPPRESS,
            metavar="|".join(spec.metadata["choices"]) or type(spec.default).__name__.upper(),
            help=f"{spec.metadata['help']} (default {spec.default})",
        )


def _parse(name: str, text: str, kind: Callable[[str], Any]) -> Any:
    text = str(text).strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    try:
        return kind(text)
    except ValueError:
        noun = "a whole number" if kind is int else "a number"
        raise HyperparameterError(f"Hyperparameter {name} must be {noun}, not {text!r}.") from None


def _check(name: str, value: Any, rule: Mapping[str, Any]) -> None:
    if rule["choices"]:
        if value not in rule["choices"]:
            raise HyperparameterError(
                f"Hyperparameter {name} must be one of {', '.join(rule['choices'])}, not {value!r}."
            )
    elif not rule["least"] <= value <= rule["most"]:  # also refuses nan
        raise HyperparameterError(
            f"Hyperparameter {name} must lie between {rule['least']:g} and {rule['most']:g}, not {value}."
        )
