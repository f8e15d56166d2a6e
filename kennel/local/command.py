"""`kennel train --local`, from the options to the last word."""

import dataclasses
import importlib.util
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer
from rich.console import Console

from kennel.compare.records import accuracy_line, read_evaluation
from kennel.console import Display, print_json, say
from kennel.errors import KennelError, require_repository
from kennel.local.run import Interrupted, LocalRun, RunFolder, new_run, read_run
from kennel.rehearsal.containers.local import pick_engine
from kennel.train.request import Request, check_hyperparameters
from kennel.upload.folder import scan_folder


def on_this_machine(request: Request) -> None:
    """Train here, or go on with an interrupted run; raise KennelError when it fails."""
    require_repository("Training on this machine")
    run = read_run(request.runs, request.resume) if request.resume else _new(request)
    if run.record.status == "done":
        raise KennelError(f"Run {run.record.run} is complete; there is nothing to go on with.")
    console = Console(highlight=False, stderr=request.as_json)
    with run.locked(), Display(console) as display, stop_signals(display.log) as stopped:
        display.log(f"Run {run.record.run}")
        engine = pick_engine()
        if engine.notice:
            display.log(engine.notice)
        try:
            LocalRun(run, engine, display, stopped).go()
        except Interrupted as error:
            typer.echo(f"kennel: {error}", err=True)
            raise typer.Exit(130) from None
        finally:
            engine.close()
    _print_result(run, request, console)


@contextmanager
def stop_signals(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Yield whether Ctrl-C or SIGTERM came: the first ends the run at the next checkpoint, the second at once."""
    came = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True
        say("Stopping; the checkpoint is kept. Once more ends it at once.")

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handle) for number in numbers]
    try:
        yield lambda: came
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _new(request: Request) -> RunFolder:
    assert request.local is not None
    hyperparameters = dict(request.hyperparameters)
    if request.tune is not None:
        hyperparameters["trials"] = str(request.tune)
        check_hyperparameters(hyperparameters)
    if importlib.util.find_spec("torch") is None:
        raise KennelError("PyTorch is not installed here, so nothing can be trained: run `make env` in the repository.")
    scan_folder(request.local)  # what is wrong with the folder is said before anything is made
    if request.weights and not request.weights.is_file():
        raise KennelError(f"{request.weights} does not exist; --weights takes a torchvision state_dict (.pth).")
    return new_run(
        request.runs,
        data=request.local,
        weights=request.weights,
        hyperparameters=hyperparameters,
        duplicates=request.duplicates or "",
        instances=request.instances or 1,
    )


def _print_result(run: RunFolder, request: Request, console: Console) -> None:
    evaluation = read_evaluation(run.path / "evaluation" / "evaluation.json")
    if request.as_json:
        metrics = {name: one["value"] for name, one in evaluation["metrics"].items()}
        return print_json({**dataclasses.asdict(run.record), "folder": str(run.path), "metrics": metrics})
    console.print(f"Test {accuracy_line(evaluation)}")
    for title, file in (("Model", "output/model.tar.gz"), ("Report", "evaluation/report.html")):
        path = run.path / file
        if path.is_file():
            shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
            say(console, f"{title}: {shown}")
