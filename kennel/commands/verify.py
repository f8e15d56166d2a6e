"""`kennel verify`."""

from typing import Annotated

import typer

from kennel.commands.common import AsJson, one_sentence, print_json


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
    with one_sentence():
        from kennel.aws import client
        from kennel.show import show_findings
        from kennel.verify.verify import verify as check

        findings = check(artifact, client=client)
        if as_json:
            print_json([{"ok": one.ok, "what": one.what, "detail": one.detail} for one in findings])
        else:
            show_findings(findings)
        if not all(one.ok for one in findings):
            raise typer.Exit(1)
