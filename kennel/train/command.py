"""`kennel train`: its options, and a run on AWS from the question what it may cost to how it ended."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from kennel.aws import Client, client
from kennel.compare.command import expectations
from kennel.compare.records import Found, aws_runs, images_of
from kennel.console import AsJson, Display, Stage, duration, print_json, say
from kennel.errors import KennelError
from kennel.prices import Prices, dollars, read_prices
from kennel.train.follow import Ending, Follower
from kennel.train.launch import Plan, attach_lines, cost_lines, plan_run, start
from kennel.train.request import Request, with_hyperparameters

_NEWEST = 8  # earlier runs that an estimate looks at
_AWS, _LOCAL, _HYPER = "On AWS", "On this machine", "Hyperparameters (default: the pipeline's, or the program's own)"


def _option(*names: str, help: str, panel: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, show_default=False)


@with_hyperparameters(_HYPER)
def train(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Name or manifest key of an uploaded data set; else the newest.")
    ] = "",
    stage: Stage = "Dev",
    instances: Annotated[int | None, typer.Option(min=1, help="Instances (or, with --local, process groups).")] = None,
    tune: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Try N settings (0: 8 of a head, one of a whole network).")
    ] = None,
    duplicates: Annotated[
        Literal["fail", "remove", "report"] | None,
        typer.Option(help="What happens to an image that is in two splits."),
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
    *,
    hyperparameters: dict[str, str],
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
    request = Request(**given)
    if request.here:
        from kennel.local.command import on_this_machine  # with the containers, which AWS needs not

        on_this_machine(request)
    else:
        on_aws(request)


def on_aws(request: Request) -> None:
    """Start a run, or attach to one; raise KennelError when it fails."""
    prices = read_prices()
    console = Console(highlight=False, stderr=request.as_json)  # stdout is for the JSON alone
    execution, about = request.follow, dict[str, Any]()
    if not execution:
        plan = plan_run(client, request.stage, request.dataset, request.pipeline_parameters(), prices)
        _ask(plan, request, console)
        execution = start(client, plan)
        about = {"parameters": plan.parameters, "most": plan.most}
        say(console, f"Started: {execution}")
        if request.detach and request.as_json:
            return print_json({"execution": execution, **about})
        if request.detach:
            return say(console, *attach_lines(execution))
    ending = _followed(execution, prices, console)
    if request.as_json:
        print_json({"execution": execution, **about, **dataclasses.asdict(ending)})
    _print_result(ending, request, console)


def _ask(plan: Plan, request: Request, console: Console) -> None:
    say(console, *cost_lines(plan, estimate(client, plan)))
    if request.yes:
        return
    if not sys.stdin.isatty():
        raise KennelError("This costs money and there is no terminal to ask on: repeat the command with --yes.")
    if not typer.confirm("Start it?", err=request.as_json):
        raise KennelError("Nothing was started.")


def _followed(execution: str, prices: Prices, console: Console) -> Ending:
    try:
        with Display(console) as display:
            return Follower(client, execution, display, prices=prices).run()
    except KeyboardInterrupt:
        why, code = "No longer followed; the run goes on.", 130
    except KennelError as error:
        why, code = f"Following ended, the run goes on: {error}", 1
    say(console, why, *attach_lines(execution))
    raise typer.Exit(code)


def _print_result(ending: Ending, request: Request, console: Console) -> None:
    cost = f"Cost about {dollars(ending.cost)}." if ending.cost is not None else "Cost unknown: a price is missing."
    if ending.status == "Succeeded":
        say(console, f"{cost} What is next: `kennel status --stage {request.stage}`.")
        return
    say(console, cost, *ending.last_lines)
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


def estimate(client: Client, plan: Plan) -> str:
    """Say what a run will probably take, from runs on the same machines scaled to this data; empty: nobody knows."""
    learning = next((job for job in plan.jobs if job.step.startswith("Train")), None)
    if learning is None:
        return ""  # how many trials a tuning job ends early is anybody's guess
    found = Found()
    try:
        aws_runs(client, plan.bucket, plan.pipeline, plan.prices, found, newest=_NEWEST)
    except KennelError:
        return ""
    kind = (
        "SageMaker spot" if "Spot" in learning.step else "SageMaker",
        f"{learning.instances} x {learning.instance_type}",
    )
    runs = [run for run in found.runs if (run.launcher, run.place) == kind]
    images = images_of(client("s3"), plan.bucket, plan.parameters["DataManifest"])
    if not (runs and images):
        return ""
    expected = expectations(runs, images=images, epochs=int(plan.values.get("Epochs", 0)), mode=runs[0].mode)
    return "".join(
        f"Runs like it took about {duration(one.seconds)} and {dollars(one.cost)} ({one.runs} in {runs[0].mode} mode)."
        for one in expected
    )
