"""`kennel train` on AWS, from the question to the last word."""

import dataclasses
import sys
from typing import Any

import typer
from rich.console import Console

from kennel.aws import client
from kennel.commands.common import print_json
from kennel.errors import KennelError
from kennel.prices import Prices, dollars, read_prices
from kennel.train.estimate import estimate
from kennel.train.follow import Ending
from kennel.train.launch import Plan, attach_lines, cost_lines, follow, plan_run, start
from kennel.train.request import Request


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
    if ending.lines:
        _say(console, f"The log of {ending.failed} ends with:")
        for line in ending.lines:
            _say(console, f"  {line}")
    where = f"in step {ending.failed}" if ending.failed else "without a failed step"
    raise KennelError(f"The run ended as {ending.status} {where}: {ending.reason} {_advice(ending)}".rstrip())


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
