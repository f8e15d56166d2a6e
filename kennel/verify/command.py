"""`kennel verify`."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from kennel.aws import client
from kennel.console import AsJson, print_json
from kennel.verify.verify import verify as findings_of


def verify(
    artifact: Annotated[
        str,
        typer.Argument(metavar="FILE|S3-URI|PACKAGE-ARN", help="model.tar.gz, its s3:// address, or a model package."),
    ],
    as_json: AsJson = False,
) -> None:
    """Check that a model is what its passport says: files, data, code, metrics and approval.

    Exit code 1 if anything is not.

    [bold]Examples[/]

      kennel verify runs/20261121-120000/output/model.tar.gz

      kennel verify s3://BUCKET/runs/kennel-dev/train/JOB/output/model.tar.gz --json
    """

    findings = findings_of(artifact, client=client)
    if as_json:
        print_json([{"ok": one.ok, "what": one.what, "detail": one.detail} for one in findings])
    else:
        show_findings(findings)
    if not all(one.ok for one in findings):
        raise typer.Exit(1)


def show_findings(findings: Sequence[Any]) -> None:
    """Each finding has `ok`, `what` and `detail`."""
    console = Console(highlight=False)
    for one in findings:
        mark, style = ("✓", "green") if one.ok else ("✗", "red")
        console.print(Text(f"{mark} {one.what}", style=style) + Text(f"  {one.detail}", style=""), soft_wrap=True)
    wrong = sum(not one.ok for one in findings)
    console.print(f"{wrong} of {len(findings)} checks failed." if wrong else f"All {len(findings)} checks passed.")
