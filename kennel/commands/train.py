"""`kennel train`: on AWS, or on this machine."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kennel.commands.common import AsJson, Stage, one_sentence

_AWS, _LOCAL, _HYPER = "On AWS", "On this machine", "Hyperparameters (default: the pipeline's, or the program's own)"


def _option(*names: str, help: str, panel: str = _HYPER, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, show_default=False)


def train(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Name or manifest key of an uploaded data set; else the newest.")
    ] = "",
    stage: Stage = "Dev",
    instances: Annotated[int | None, typer.Option(min=1, help="Instances (or, with --local, process groups).")] = None,
    tune: Annotated[int | None, typer.Option(min=0, metavar="N", help="Try N settings.")] = None,
    duplicates: Annotated[
        str | None, typer.Option(metavar="fail|remove|report", help="What happens to an image that is in two splits.")
    ] = None,
    as_json: AsJson = False,
    instance_type: Annotated[str | None, _option(help="Such as ml.m5.2xlarge.", panel=_AWS)] = None,
    spot: Annotated[bool, _option("--spot", help="Spot capacity: cheaper, may be interrupted.", panel=_AWS)] = False,
    settings: Annotated[
        list[str] | None, _option("--set", metavar="NAME=VALUE", help="Any pipeline parameter.", panel=_AWS)
    ] = None,
    yes: Annotated[bool, _option("--yes", "-y", help="Do not ask before it costs money.", panel=_AWS)] = False,
    detach: Annotated[bool, _option("--detach", help="Start it and do not follow.", panel=_AWS)] = False,
    follow: Annotated[str, _option(metavar="ARN", help="Follow a run that was started before.", panel=_AWS)] = "",
    local: Annotated[
        Path | None, _option(metavar="FOLDER", help="Train here, on this folder of class folders.", panel=_LOCAL)
    ] = None,
    weights: Annotated[
        Path | None, _option(metavar="FILE", help="Pretrained torchvision state_dict (.pth).", panel=_LOCAL)
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs on this machine.", rich_help_panel=_LOCAL)] = Path(
        "runs"
    ),
    resume: Annotated[str, _option(metavar="RUN", help="Go on with a run that was interrupted.", panel=_LOCAL)] = "",
    model: Annotated[str | None, _option(help="Network: resnet18/34/50, mobilenet_v3_*, efficientnet_b0.")] = None,
    mode: Annotated[str | None, _option(metavar="auto|head|whole", help="What learns.")] = None,
    image_size: Annotated[str | None, _option(metavar="PIXELS", help="Side of what the network sees.")] = None,
    epochs: Annotated[str | None, _option(metavar="N", help="Passes over the training images.")] = None,
    batch_size: Annotated[str | None, _option(metavar="N", help="Images in an optimizer step.")] = None,
    learning_rate: Annotated[str | None, _option(metavar="X", help="Highest learning rate.")] = None,
    weight_decay: Annotated[str | None, _option(metavar="X", help="Decoupled weight decay.")] = None,
    label_smoothing: Annotated[str | None, _option(metavar="X", help="Share of the target spread out.")] = None,
    seed: Annotated[str | None, _option(metavar="N", help="Seed of everything random.")] = None,
    precision: Annotated[str | None, _option(metavar="NAME", help="auto, float32, bfloat16 or int8.")] = None,
    views: Annotated[str | None, _option(metavar="N", help="Head mode: augmented views of an image.")] = None,
    mixup: Annotated[str | None, _option(metavar="X", help="Whole mode: strength of blending pairs.")] = None,
    ema: Annotated[str | None, _option(metavar="X", help="Whole mode: decay of averaged weights.")] = None,
    compile: Annotated[str | None, _option(metavar="yes|no", help="Whole mode: compile the network.")] = None,
    abstain_coverage: Annotated[str | None, _option(metavar="X", help="Share that the model answers.")] = None,
    abstain_precision: Annotated[str | None, _option(metavar="X", help="Or: share of right answers.")] = None,
    int8: Annotated[str | None, _option(metavar="auto|no", help="Offer the model in int8 too.")] = None,
    export_agreement: Annotated[str | None, _option(metavar="X", help="Least agreement of int8.")] = None,
    export_change: Annotated[str | None, _option(metavar="X", help="Largest change by int8.")] = None,
    runtime: Annotated[str | None, _option(metavar="NAME", help="openvino, onnxruntime or torch.")] = None,
) -> None:
    """Train a model: as the stage's pipeline on AWS, or here with --local.

    On AWS it says what the run can cost at most, asks, and follows it; Ctrl-C
    leaves the run going. Here, Ctrl-C keeps the checkpoint; --resume goes on.

    [bold]Examples[/]

      kennel train --epochs 20 --spot

      kennel train breeds --instance-type ml.m5.4xlarge --stage Prod --detach

      kennel train --local dogs --weights resnet50.pth --tune 50

      kennel train --resume 20261121-120000-a1b2
    """
    given = dict(locals())
    with one_sentence():
        from kennel.train.choose import HYPERPARAMETERS
        from kennel.train.request import Request

        told = {name: given.pop(name) for name in HYPERPARAMETERS}
        hyperparameters = {name: value for name, value in told.items() if value is not None}
        request = Request(hyperparameters=hyperparameters, **given)
        if request.here:
            from kennel.local.command import on_this_machine

            on_this_machine(request)
        else:
            from kennel.train.command import on_aws

            on_aws(request)
