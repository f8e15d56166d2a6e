"""`kennel verify`: checks a model's passport against the files beside it and the model registry."""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from kennel.aws import Client, aws_errors, client
from kennel.console import AsJson, print_json
from kennel.errors import KennelError
from kennel.verify.archive import LARGEST, Member, read_members

_ARN = re.compile(r"arn:[a-z-]+:sagemaker:[a-z0-9-]+:\d{12}:model-package/\S+", re.ASCII)
NAME = "passport.json"
_FILES = ("model.json", "model.xml", "model.bin")  # what is served
_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[a-z.]+/(?P<repository>[^:@]+)"
    r"(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


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
    wrong = sum(not one.ok for one in findings)
    if as_json:
        print_json([one._asdict() for one in findings])
    else:
        console = Console(highlight=False)
        for one in findings:
            mark, style = ("✓", "green") if one.ok else ("✗", "red")
            console.print(Text(f"{mark} {one.what}", style=style) + Text(f"  {one.detail}", style=""), soft_wrap=True)
        console.print(f"{wrong} of {len(findings)} checks failed." if wrong else f"All {len(findings)} checks passed.")
    if wrong:
        raise typer.Exit(1)


def check_artifact(artifact: str, *, client: Client) -> list["Finding"]:
    """Check `artifact`: a local model.tar.gz, an s3:// address or the ARN of a model package.

    Each file against the passport's hash, model.json against the passport, and for a model package its metadata
    against the artifact. `client` makes a boto3 client of a service. Raise KennelError for an artifact that cannot be
    read or is hostile.
    """
    if artifact.startswith("arn:"):
        return _check_registered(artifact, client)
    return check_members(_members_of(artifact, client))


def _check_registered(arn: str, client: Client) -> list["Finding"]:
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


class Finding(NamedTuple):
    """The result of one check: whether it passed, and the value or what is wrong with it."""

    ok: bool
    what: str
    detail: str


def check_members(members: Mapping[str, Member]) -> list[Finding]:
    """Compare each file with the passport's hash, and model.json with the passport."""
    passport = read_json(members, NAME)
    if not passport:
        return [Finding(False, NAME, "missing or no JSON object: the artifact was made without a passport")]
    if passport.get("format") != 1:
        return [Finding(False, NAME, f"has format {_short(passport.get('format'))}, this command reads 1")]
    named = mapping(passport, "files")
    files = sorted({*map(_short, named), *members, *_FILES} - {NAME})
    record = read_json(members, "model.json")
    return [
        Finding(True, NAME, f"sha256 {members[NAME].sha256}"),
        *(_file(name, members.get(name), named.get(name)) for name in files),
        *(same(f"model.json: {key}", record.get(key), passport.get(key)) for key in ("hyperparameters", "metrics")),
        same(
            "model.json: data.fingerprint",
            mapping(record, "data").get("fingerprint"),
            mapping(passport, "data").get("fingerprint"),
        ),
        same("code", code := mapping(passport, "code").get("sha256"), code),
    ]


def _file(name: str, member: Member | None, meant: Any) -> Finding:
    if member is None:
        return Finding(False, name, "missing from the archive")
    if meant is None:
        return Finding(False, name, "in the archive, but not in the passport")
    if member.sha256 != meant:
        return Finding(False, name, f"changed: its sha256 is {member.sha256}, the passport's {_short(meant)}")
    return Finding(True, name, f"sha256 {member.sha256}")


def same(what: str, one: Any, other: Any) -> Finding:
    """Compare what somebody says with what the passport says; what either does not say is no agreement."""
    if one is None or other is None:
        return Finding(False, what, "not recorded")
    if one != other:
        return Finding(False, what, f"{_short(one)}, but the passport says {_short(other)}")
    return Finding(True, what, _short(one))


def read_json(members: Mapping[str, Member], name: str) -> dict[str, Any]:
    """Return the object in the file `name`, or an empty one for a file that is missing or holds anything else."""
    try:
        content = json.loads(members[name].content) if name in members else {}
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def mapping(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    text = "".join(letter if letter.isprintable() else "?" for letter in text)  # it goes to a terminal
    return text if len(text) <= 200 else text[:199] + "…"


def check_package(package: Mapping[str, Any], members: Mapping[str, Member], client: Client) -> list[Finding]:
    """Compare DescribeModelPackage's answer with the artifact; resolve its images and name who approved it."""
    passport = read_json(members, NAME)
    containers = package.get("InferenceSpecification", {}).get("Containers") or [{}]
    metadata = package.get("CustomerMetadataProperties", {})
    recorded = {
        "passport_sha256": members[NAME].sha256 if NAME in members else None,
        "data_fingerprint": mapping(passport, "data").get("fingerprint"),
        "code_sha256": mapping(passport, "code").get("sha256"),
        "training_image": passport.get("image"),
    }
    return [
        *(same(f"registry: {key}", metadata.get(key), value) for key, value in recorded.items()),
        _approval(package),
        _digest("training image", str(passport.get("image") or ""), client),
        _digest("inference image", containers[0].get("Image", ""), client),
    ]


def _approval(package: Mapping[str, Any]) -> Finding:
    user = package.get("LastModifiedBy") or package.get("CreatedBy") or {}
    who = user.get("UserProfileName") or user.get("IamIdentity", {}).get("Arn") or "nobody named"
    reason = f": {package['ApprovalDescription']}" if package.get("ApprovalDescription") else ""
    return Finding(True, "approval", f"{package.get('ModelApprovalStatus', 'unknown')}, last changed by {who}{reason}")


def _digest(what: str, image: str, client: Client) -> Finding:
    """Resolve an image's digest; that it cannot be is worth a note and no more: the passport holds without it."""
    parts = _IMAGE.fullmatch(image)
    if not parts:
        return Finding(True, what, f"not resolved: {image or 'none is named'}")
    if parts["digest"]:
        return Finding(True, what, parts["digest"])
    try:
        with aws_errors():
            found = client("ecr").describe_images(
                registryId=parts["account"],
                repositoryName=parts["repository"],
                imageIds=[{"imageTag": parts["tag"] or "latest"}],
            )
        return Finding(True, what, f"{found['imageDetails'][0]['imageDigest']} ({image})")
    except (KennelError, LookupError) as error:
        return Finding(True, what, f"not resolved: {error}")
