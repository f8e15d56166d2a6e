"""What the commands share: options, and errors as one sentence."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from kennel.errors import KennelError

Stage = Annotated[str, typer.Option(help="Stage of the app: Dev or Prod.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@contextmanager
def one_sentence() -> Iterator[None]:
    """Say errors that the operator can do something about without a traceback (KENNEL_DEBUG=1 shows it)."""
    try:
        yield
    except KennelError as error:
        if os.environ.get("KENNEL_DEBUG"):
            raise
        _fail(f"kennel: {error}", 1)
    except (typer.Exit, typer.Abort):
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
        _fail(f"kennel: {type(error).__name__}: {error} (KENNEL_DEBUG=1 shows where)", 1)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _fail(text: str, code: int) -> None:
    typer.echo(text, err=True)
    raise typer.Exit(code)
