"""The command `kennel`. Errors are one sentence on stderr: exit code 1 for what went wrong, 2 for wrong usage."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from kennel.errors import ROOT, KennelError

COMMANDS = {  # name: the module that holds the function of that name
    "rehearse": "kennel.rehearsal.options",
    "upload": "kennel.upload.upload",
    "train": "kennel.train.command",
    "compare": "kennel.compare.command",
    "verify": "kennel.verify.command",
    "loadtest": "kennel.loadtest.command",
    "invoke": "kennel.invoke",
    "releases": "kennel.releases",
    "approve": "kennel.releases",
    "reject": "kennel.releases",
    "rollback": "kennel.releases",
    "drill": "kennel.rehearsal.drill.command",
    "preflight": "kennel.preflight",
    "status": "kennel.status",
}


class Commands(TyperGroup):
    """Imports a command's module when that command is called: `kennel --help` pays for none of them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        assert name is not None
        single = typer.Typer(add_completion=False, rich_markup_mode="rich")
        single.command(name)(getattr(import_module(COMMANDS[name]), name))
        return name, typer.main.get_command(single), rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for name, command in self.commands.items():
            command.help = _first_line(name)
        super().format_help(ctx, formatter)

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


for _name in COMMANDS:
    app.command(_name)(_placeholder)


def _first_line(command: str) -> str:
    """Return the first line of a command's docstring, read from its source, as importing it may load boto3."""
    source = ROOT.joinpath(*COMMANDS[command].split(".")).with_suffix(".py").read_text(encoding="utf-8")
    found = re.search(rf'^def {command}\(.*?"""(.*?)$', source, re.DOTALL | re.MULTILINE)
    return found[1] if found else ""


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


if __name__ == "__main__":  # `make deploy`, which needs no installed `kennel`
    app(prog_name="kennel")
