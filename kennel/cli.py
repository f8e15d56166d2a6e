"""The command `kennel`. Errors are one sentence on stderr: exit code 1 for what went wrong, 2 for wrong usage."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from kennel.errors import KennelError

COMMANDS = {  # name: the module that holds the function of that name, and the first sentence of its docstring
    "rehearse": (
        "kennel.rehearsal.options",
        "Run everything on this machine: deploy, upload, train, release, classify. No AWS account, no Docker.",
    ),
    "upload": ("kennel.upload.command", "Send a folder of images to the data bucket, which starts the pipeline."),
    "train": ("kennel.train.command", "Train a model: as the stage's pipeline on AWS, or here with --local."),
    "compare": (
        "kennel.compare.command",
        "Compare past runs (SageMaker, spot, EC2, this machine): time, cost, accuracy; and recommend the next.",
    ),
    "verify": (
        "kennel.verify.command",
        "Check that a model is what its passport says: files, data, code, metrics and approval.",
    ),
    "loadtest": (
        "kennel.loadtest.command",
        "Find the requests per second that one instance holds at a p99 target.",
    ),
    "invoke": ("kennel.invoke", "Ask the deployed function what is on a picture."),
    "releases": (
        "kennel.releases",
        "Show each version of the model: who approved it and when, how good it is, what became of it and why.",
    ),
    "approve": (
        "kennel.releases",
        "Approve a version, which releases it; an older one, or one that was rolled back, too.",
    ),
    "reject": (
        "kennel.releases",
        "Reject a version, so that nothing releases it; one that is served stays until another is (kennel rollback).",
    ),
    "rollback": ("kennel.releases", "Go back to the version that was live before, and reject the one that is."),
    "status": (
        "kennel.status",
        "Show stacks, pipeline runs, models and the endpoint, and say what to do next.",
    ),
}


class Commands(TyperGroup):
    """Imports a command's module when that command is called: `kennel --help` pays for none of them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        assert name is not None
        single = typer.Typer(add_completion=False, rich_markup_mode="rich")
        single.command(name)(getattr(import_module(COMMANDS[name][0]), name))
        return name, typer.main.get_command(single), rest

    def invoke(self, ctx: Any) -> Any:
        with _errors_as_one_sentence():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Commands,
    name="kennel",
    help="Put an image classifier into production on AWS, and rehearse all of it on this machine first.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _placeholder() -> None:
    """Stand in the list of commands for one whose module is not imported yet."""


for _name, (_, _summary) in COMMANDS.items():
    app.command(_name, help=_summary)(_placeholder)


@contextmanager
def _errors_as_one_sentence() -> Iterator[None]:
    """Print errors without a traceback (KENNEL_DEBUG=1 shows it) and turn them into exit codes."""
    try:
        yield
    except (typer.Exit, typer.Abort, TyperException):
        raise
    except KeyboardInterrupt:
        _fail("kennel: stopped.", 130)
    except BrokenPipeError:
        # The reader (`| head`) has gone; without this Python would complain at exit about the flush of stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except Exception as error:
        if os.environ.get("KENNEL_DEBUG"):
            raise
        if isinstance(error, KennelError):
            _fail(f"kennel: {error}", 1)
        _fail(f"kennel: {type(error).__name__}: {error} (KENNEL_DEBUG=1 shows where)", 1)


def _fail(text: str, code: int) -> None:
    typer.echo(text, err=True)
    raise typer.Exit(code)
