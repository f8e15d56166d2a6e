"""`kennel drill`: bad models and functions, released through a stage's settings, and what became of each."""

import dataclasses
import signal
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kennel.aws import stack_name
from kennel.console import AsJson, Stage, print_json
from kennel.errors import require_repository

if TYPE_CHECKING:
    from kennel.rehearsal.drill.drill import Case, Outcome

_TITLE = f"{'released':26} {'traffic':7} {'old fleet':9} {'nets':20} {'rolled back':11} {'min':>3} {'by':16} "
_COUNTS = f"{'failed':>6} {'of':>5} {'busy':>5}"


def drill(
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="WORDS", help="Only releases with this word: model, traffic, net, function; repeatable."),
    ] = None,
    stage: Stage = "Prod",
    as_json: AsJson = False,
) -> None:
    """Release bad models and functions through a stage's settings here: is each rolled back, when, and by what?

    Time is simulated, the servers and their answers are real. Exit code 1: something bad stayed or something good not.

    [bold]Examples[/]

      kennel drill

      kennel drill --only slow --only night

      kennel drill --only function
    """
    require_repository("The drill")
    stack_name(stage, "")  # a wrong name is an error before the embedded AWS is imported, which takes a second
    from kennel.loadtest.subject import describe_machine
    from kennel.rehearsal.cloud.clients import forget_settings

    forget_settings()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stop by SIGTERM cleans up as Ctrl-C does
    cases = _chosen(only or [])
    about, show = f"{date.today().isoformat()}, {describe_machine()}", _say_nothing if as_json else typer.echo
    show(f"{about}\n\n{_TITLE}{_COUNTS}")
    outcomes = _run(cases, stage, show)
    wrong = [one for one in outcomes if not one.is_right]
    if as_json:
        found = [{**dataclasses.asdict(one), "is_right": one.is_right} for one in outcomes]
        print_json({"machine": about, "stage": stage, "outcomes": found})
    show(f"\n{len(outcomes)} releases, {len(wrong)} of them not as they should be.")
    raise typer.Exit(1 if wrong else 0)


def _chosen(names: list[str]) -> "list[Case]":
    """Return the cases that have all `names`; raise BadParameter where none does."""
    from kennel.rehearsal.drill.drill import all_cases
    from kennel.rehearsal.drill.functions import function_cases

    cases = [case for case in (*all_cases(), *function_cases()) if case.has_names(names)]
    if not cases:
        raise typer.BadParameter(f"No case of the drill is called {' and '.join(names)}.", param_hint="--only")
    return cases


def _say_nothing(text: str) -> None:
    """Take the place of what people read, where a program reads."""


def _run(cases: "Sequence[Case]", stage: str, show: Callable[[str], object]) -> "list[Outcome]":
    """Return the outcome of each case, shown as soon as it is known."""
    from kennel.rehearsal.drill.drill import Drill
    from kennel.rehearsal.drill.functions import Function, FunctionDrill
    from kennel.rehearsal.drill.stage import embedded
    from kennel.rehearsal.rehearse import synthesize

    outcomes = []
    with tempfile.TemporaryDirectory(prefix="kennel-") as folder:
        work = Path(folder)
        assembly = synthesize(work / "cdk.out")
        with (
            embedded(work) as (cloud, fleets),
            Drill(cloud, fleets, assembly, stage, work) as models,
            FunctionDrill(models, assembly, stage, work) as functions,
        ):
            for case in cases:
                outcomes.append((functions if isinstance(case.released, Function) else models).run(case))
                show(line(outcomes[-1]))
    return outcomes


def line(one: "Outcome") -> str:
    """Return the row of one outcome."""
    rolled_back = "yes" if one.rolled_back else "no"
    verdict = rolled_back if one.is_right else f"{rolled_back.upper()} (!)"
    about = f"{one.model:26} {one.traffic:7} {one.old:9} {one.net:20} {verdict:11} {one.minutes:3} {one.by or '-':16} "
    return f"{about}{one.failed:6,} {one.requests:5,} {one.busy:5,}"
