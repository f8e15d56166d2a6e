"""`kennel verify`: checks a model artifact or a registered package against its passport."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from kennel.aws import Client, aws_errors, client
from kennel.console import AsJson, print_json
from kennel.errors import KennelError
from kennel.verify.archive import LARGEST, Member, read_members
from kennel.verify.passport import Finding, check_members, check_package

_ARN = re.compile(r"arn:[a-z-]+:sagemaker:[a-z0-9-]+:\d{12}:model-package/\S+", re.ASCII)


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

    findings = check_artifact(artifact, client=client)
    if as_json:
        print_json([one._asdict() for one in findings])
    else:
        show_findings(findings)
    if not all(one.ok for one in findings):
        raise typer.Exit(1)


def show_findings(findings: Sequence[Any]) -> None:
    """Print a line for each finding, and how many failed."""
    console = Console(highlight=False)
    for one in findings:
        mark, style = ("✓", "green") if one.ok else ("✗", "red")
        console.print(Text(f"{mark} {one.what}", style=style) + Text(f"  {one.detail}", style=""), soft_wrap=True)
    wrong = sum(not one.ok for one in findings)
    console.print(f"{wrong} of {len(findings)} checks failed." if wrong else f"All {len(findings)} checks passed.")


def check_artifact(artifact: str, *, client: Client) -> list[Finding]:
    """Check `artifact`: a local model.tar.gz, an s3:// address or the ARN of a model package.

    Each file against the passport's hash, model.json against the passport, and for a model package its metadata
    against the artifact. `client` makes a boto3 client of a service. Raise KennelError for an artifact that cannot be
    read or is hostile.
    """
    if artifact.startswith("arn:"):
        return _check_registered(artifact, client)
    return check_members(_members_of(artifact, client))


def _check_registered(arn: str, client: Client) -> list[Finding]:
    if not _ARN.fullmatch(arn):
        raise KennelError(f"{arn!r} is no ARN of a model package (arn:aws:sagemaker:...:model-package/GROUP/VERSION).")
    with aws_errors():
        package = client("sagemaker").describe_model_package(ModelPackageName=arn)
    containers = package.get("InferenceSpecification", {}).get("Containers") or [{}]
    address = containers[0].get("ModelDataUrl", "")
    if not address.startswith("s3://"):
        raise KennelError(f"The model package {arn} names no artifact in S3.")
    members = _members_of(address, client)
    return [*check_members(members), *check_package(package, members, client)]


def _members_of(place: str, client: Client) -> dict[str, Member]:
    with _from_s3(place, client) if place.startswith("s3://") else _from_disk(place) as file:
        return read_members(file, place)


@contextmanager
def _from_disk(place: str) -> Iterator[IO[bytes]]:
    try:
        with Path(place).open("rb") as file:
            yield file
    except OSError as error:
        hint = "name a model.tar.gz, an s3:// address or the ARN of a model package"
        raise KennelError(f"{place} cannot be read ({error.strerror or error}); {hint}.") from None


@contextmanager
def _from_s3(place: str, client: Client) -> Iterator[IO[bytes]]:
    bucket, _, key = place.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise KennelError(f"{place!r} must be s3://BUCKET/KEY of a model.tar.gz.")
    with tempfile.TemporaryFile() as file:
        s3 = client("s3")
        with aws_errors():
            size = s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
            if size > LARGEST:
                raise KennelError(f"{place} is refused: it is larger than {LARGEST >> 30} GiB.")
            s3.download_fileobj(bucket, key, file)
        file.seek(0)
        yield file
