"""`kennel train` on AWS, from the question to the last word."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from kennel.aws import client
from kennel.console import AsJson, Stage, print_json
from kennel.errors import KennelError
from kennel.prices import Prices, dollars, read_prices
from kennel.train.choose import HYPERPARAMETERS
from kennel.train.estimate import estimate
from kennel.train.follow import Ending
from kennel.train.launch import Plan, attach_lines, cost_lines, follow, plan_run, start
from kennel.train.request import Request

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
    told = {name: given.pop(name) for name in HYPERPARAMETERS}
    hyperparameters = {name: value for name, value in told.items() if value is not None}
    request = Request(hyperparameters=hyperparameters, **given)
    if request.here:
        from kennel.local.command import on_this_machine  # with the containers, which AWS needs not

        on_this_machine(request)
    else:
        on_aws(request)


def on_aws(request: Request) -> None:
    """Start a run, or attach to one; raises KennelError when it fails."""
    prices = read_prices()
    console = Console(highlight=False, stderr=request.as_json)  # stdout is for the JSON alone
    execution, about = request.follow, dict[str, Any]()
    if not execution:
        plan = plan_run(client, request.stage, request.dataset, request.pipeline_parameters(), prices)
        _ask(plan, request, console)
        execution = start(client, plan)
        about = {"parameters": plan.parameters, "most": plan.most}
        _say(console, f"Started: {execution}")
        if request.detach:
            return _detached(execution, about, request, console)
    ending = _followed(execution, prices, console)
    if request.as_json:
        print_json({"execution": execution, **about, **dataclasses.asdict(ending)})
    _last_word(ending, request, console)


def _ask(plan: Plan, request: Request, console: Console) -> None:
    for line in cost_lines(plan, estimate(client, plan)):
        _say(console, line)
    if request.yes:
        return
    if not sys.stdin.isatty():
        raise KennelError("This costs money and there is no terminal to ask on: repeat the command with --yes.")
    if not typer.confirm("Start it?", err=request.as_json):
        raise KennelError("Nothing was started.")


def _detached(execution: str, about: dict[str, Any], request: Request, console: Console) -> None:
    if request.as_json:
        return print_json({"execution": execution, **about})
    for line in attach_lines(execution):
        _say(console, line)


def _followed(execution: str, prices: Prices, console: Console) -> Ending:
    try:
        return follow(client, execution, prices, console)
    except KeyboardInterrupt:
        _say(console, "No longer followed; the run goes on.")
    except KennelError as error:
        _say(console, f"Following ended, the run goes on: {error}")
        for line in attach_lines(execution):
            _say(console, line)
        raise typer.Exit(1) from None
    for line in attach_lines(execution):
        _say(console, line)
    raise typer.Exit(130)


def _last_word(ending: Ending, request: Request, console: Console) -> None:
    cost = f"Cost about {dollars(ending.cost)}." if ending.cost is not None else "Cost unknown: a price is missing."
    if ending.status == "Succeeded":
        _say(console, f"{cost} What is next: `kennel status --stage {request.stage}`.")
        return
    _say(console, cost)
    for line in ending.last_lines:
        _say(console, line)
    raise KennelError(f"{ending.sentence} {_advice(ending)}".rstrip())


def _advice(ending: Ending) -> str:
    if ending.status == "Stopped":
        return "Start it again with `kennel train`; what was prepared is used again."
    known = {
        "ResourceLimitExceeded": "Ask for a higher quota in Service Quotas, or use another --instance-type.",
        "CapacityError": "Try later, another --instance-type, or without --spot.",
        "MaxRuntimeExceeded": "Use more or larger instances, or raise max_runtime_hours in stacks/config.py.",
        "AlgorithmError": "Mend what it says and run `kennel train` again; what was prepared is used again.",
    }
    return next((advice for mark, advice in known.items() if mark in ending.reason), "")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
