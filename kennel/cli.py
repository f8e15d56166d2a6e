"""The command `kennel`. Errors are one sentence on stderr: exit code 1 for what went wrong, 2 for wrong usage."""

import typer

from kennel.commands.compare import compare
from kennel.commands.invoke import invoke
from kennel.commands.loadtest import loadtest
from kennel.commands.rehearse import rehearse
from kennel.commands.status import status
from kennel.commands.train import train
from kennel.commands.upload import upload
from kennel.commands.verify import verify

app = typer.Typer(
    name="kennel",
    help="Put an image classifier into production on AWS, and rehearse all of it on this machine first.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (rehearse, upload, train, compare, verify, loadtest, invoke, status):
    app.command()(command)
