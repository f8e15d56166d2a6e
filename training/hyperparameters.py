"""The hyperparameters of a training run, declared once: command lines, the pipeline and the model's record read them.

Standard library only: the CDK app and the `kennel` command import this module. A new hyperparameter takes one more
field here, and one place that uses it.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

# Names in torchvision.models, of networks that take any image size, begin with a convolution and end with a linear
# layer: training/train/model.py adapts both, so that a new network takes its name here and nothing else.
MODELS = ("resnet18", "resnet34", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")


MODES = ("head", "whole", "finetune")
HEAD_MODES = ("head", "finetune")  # begin with the head: they need weights, and try its settings within one job

# The ones that int8 makes about twice as fast at no loss; of depthwise convolutions it has 1.2 times the speed, and
# dogs120's photographs lose two points of accuracy (EfficientNet-B0).
SUITED_TO_INT8 = ("resnet18", "resnet34", "resnet50")


class HyperparameterError(ValueError):
    """A hyperparameter is unknown or its value cannot work; the text names it and what would work."""


def _declare(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    minimum: float = -math.inf,
    maximum: float = math.inf,
    mode: str = "all",
) -> Any:
    """Return a field; `mode` says what it has an effect on: "head", "whole" (finetune mode does both), "finetune"."""
    metadata = {"help": help, "choices": tuple(choices), "minimum": minimum, "maximum": maximum, "mode": mode}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Settings of one training run. SageMaker passes each as a string under the field's name."""

    model: str = _declare("resnet50", "network architecture", choices=MODELS)
    mode: str = _declare(
        "auto",
        "train the last layer (head), every layer (whole), or one and then the other (finetune); auto: head if there "
        "are weights",
        choices=("auto", *MODES),
    )
    image_size: int = _declare(224, "side of the network's square input, in pixels", minimum=16, maximum=1024)
    epochs: int = _declare(10, "passes over the training split", minimum=1, maximum=10_000)
    batch_size: int = _declare(256, "images per optimizer step, over all workers", minimum=1, maximum=65_536)
    learning_rate: float = _declare(0.0029, "peak learning rate of the schedule", minimum=1e-9, maximum=10)
    weight_decay: float = _declare(0.01, "decoupled weight decay (AdamW)", minimum=0, maximum=100)
    label_smoothing: float = _declare(
        0.05, "part of the target that is spread over all classes", minimum=0, maximum=0.9
    )
    seed: int = _declare(
        0, "seed of initial weights, image order, augmentation and dropout", minimum=0, maximum=2**31 - 1
    )
    precision: str = _declare(
        "auto",
        "precision of the network; auto: the fastest that the hardware supports; int8 in head mode only",
        choices=("auto", "float32", "bfloat16", "int8"),
    )
    views: int = _declare(
        0, "augmented views per training image beside the plain one", minimum=0, maximum=32, mode="head"
    )
    trials: int = _declare(
        0,
        "settings to try on the same features, of which the best are averaged; 0: 8, 1: the given ones alone",
        minimum=0,
        maximum=10_000,
        mode="head",
    )
    mixup: float = _declare(
        0.0, "mixup's alpha, for blending pairs of images; 0: off", minimum=0, maximum=4, mode="whole"
    )
    ema: float = _declare(
        0.0,
        "decay per step of the averaged weights (EMA) that are exported; 0: off",
        minimum=0,
        maximum=0.99999,
        mode="whole",
    )
    compile: str = _declare(
        "no", "torch.compile: minutes at the start, then faster steps", choices=("no", "yes"), mode="whole"
    )
    finetune_rate: float = _declare(
        0.0003, "peak learning rate of the whole network after its head", minimum=1e-9, maximum=10, mode="finetune"
    )
    layer_decay: float = _declare(
        0.85, "factor on that rate for each block further from the head", minimum=0.01, maximum=1, mode="finetune"
    )
    abstain_coverage: float = _declare(
        0.95,
        "fraction of the validation images that get an answer; the least certain rest gets 'not sure'",
        minimum=0.01,
        maximum=1,
    )
    abstain_precision: float = _declare(
        0.0, "instead of the coverage: fraction of the answers that must be right; 0: off", minimum=0, maximum=1
    )
    known_coverage: float = _declare(
        0.97,
        "fraction of the validation images that count as known by their features; 1: every picture counts as known",
        minimum=0.01,
        maximum=1,
    )
    int8: str = _declare(
        "auto",
        "export the model in int8 too, if it costs no accuracy; auto: of ResNets, yes: of any network",
        choices=("auto", "yes", "no"),
    )
    int8_loss: float = _declare(
        0.005, "largest loss of accuracy on validation that int8 may cost", minimum=0, maximum=1
    )
    runtime: str = _declare(
        "openvino",
        "runtime that will serve the model: onnxruntime adds model.onnx to the artifact, torch adds model.pt2",
        choices=("openvino", "onnxruntime", "torch"),
    )

    def __post_init__(self) -> None:
        for declared in fields(self):
            _check(declared.name, getattr(self, declared.name), declared.metadata)

    @classmethod
    def from_strings(cls, values: Mapping[str, str]) -> "Hyperparameters":
        """Parse SageMaker's strings; raise HyperparameterError for an unknown name or a bad value.

        A value may be wrapped in quotes, as SDKs that write JSON values do. SageMaker's own settings
        (`sagemaker_...`, and `_tuning_objective_metric` in a tuning job) are ignored.
        """
        types = {declared.name: type(declared.default) for declared in fields(cls)}
        parsed = {}
        for name, text in values.items():
            if name.startswith(("sagemaker_", "_tuning_")):
                continue
            if name not in types:
                raise HyperparameterError(f"Unknown hyperparameter {name!r}; known are {', '.join(types)}.")
            parsed[name] = _parse(name, text, types[name])
        return cls(**parsed)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings with their types, for the model's record."""
        return asdict(self)

    def to_strings(self) -> dict[str, str]:
        """Return the settings as SageMaker carries them."""
        return {name: str(value) for name, value in asdict(self).items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` one option per field (`--learning-rate`), absent by default so that it can override others."""
    for declared in fields(Hyperparameters):
        parser.add_argument(
            option_name(declared),
            default=argparse.SUPPRESS,
            metavar="|".join(declared.metadata["choices"]) or type(declared.default).__name__.upper(),
            help=f"{describe(declared)} (default {declared.default})",
        )


def settable() -> list[Field[Any]]:
    """Return the fields that have a pipeline parameter and an option of a command each: all but `trials`.

    The trials of a search are the pipeline's TuneTrials and the commands' --tune.
    """
    return [declared for declared in fields(Hyperparameters) if declared.name != "trials"]


def parameter_name(name: str) -> str:
    """Return the pipeline parameter of a hyperparameter: `learning_rate` -> `LearningRate`."""
    return "".join(word.capitalize() for word in name.split("_"))


def option_name(declared: Field[Any]) -> str:
    """Return a field's command-line option, such as `--learning-rate`."""
    return "--" + declared.name.replace("_", "-")


def describe(declared: Field[Any]) -> str:
    """Return a field's help text in one line, with the modes in which it has an effect if not in all."""
    mode, text = declared.metadata["mode"], str(declared.metadata["help"])
    return {"all": "", "finetune": "finetune mode only: "}.get(mode, f"{mode} and finetune mode only: ") + text


def _parse(name: str, text: str, parse: Callable[[str], Any]) -> Any:
    text = str(text).strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    try:
        return parse(text)
    except ValueError:
        expected = "a whole number" if parse is int else "a number"
        raise HyperparameterError(f"Hyperparameter {name} must be {expected}, not {text!r}.") from None


def _check(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    choices, minimum, maximum = metadata["choices"], metadata["minimum"], metadata["maximum"]
    if choices and value not in choices:
        raise HyperparameterError(f"Hyperparameter {name} must be one of {', '.join(choices)}, not {value!r}.")
    if not choices and not minimum <= value <= maximum:  # also refuses nan
        raise HyperparameterError(f"Hyperparameter {name} must lie between {minimum:g} and {maximum:g}, not {value}.")
