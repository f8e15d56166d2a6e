"""Holds a model artifact to its passport, and the registry's record of it to both."""

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kennel.archive import LARGEST, Member, read_members
from kennel.aws import plainly
from kennel.errors import KennelError

Client = Callable[[str], Any]
_FILES = ("model.json", "model.xml", "model.bin")  # what is served
_ARN = re.compile(r"arn:[a-z-]+:sagemaker:[a-z0-9-]+:\d{12}:model-package/\S+", re.ASCII)
_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[a-z.]+/(?P<repository>[^:@]+)"
    r"(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: whether it holds, and the value or what is wrong with it."""

    ok: bool
    what: str
    detail: str


def verify(artifact: str, *, client: Client) -> list[Finding]:
    """Check `artifact`: a local model.tar.gz, an s3:// address or the ARN of a model package.

    Each file against the passport's hash, model.json against the passport, and for a model package its metadata
    against the artifact. `client` makes a boto3 client of a service. Raises KennelError for an artifact that cannot be
    read or is hostile.
    """
    if artifact.startswith("arn:"):
        return _verify_package(artifact, client)
    members = _members_of(artifact, client)
    return _verify_members(members, _json(members, "passport.json"))


def _verify_package(arn: str, client: Client) -> list[Finding]:
    if not _ARN.fullmatch(arn):
        raise KennelError(f"{arn!r} is no ARN of a model package (arn:aws:sagemaker:...:model-package/GROUP/VERSION).")
    with plainly():
        package = client("sagemaker").describe_model_package(ModelPackageName=arn)
    containers = package.get("InferenceSpecification", {}).get("Containers") or [{}]
    address = containers[0].get("ModelDataUrl", "")
    if not address.startswith("s3://"):
        raise KennelError(f"The model package {arn} names no artifact in S3.")
    members = _members_of(address, client)
    passport = _json(members, "passport.json")
    return [
        *_verify_members(members, passport),
        *_verify_metadata(package.get("CustomerMetadataProperties", {}), members, passport),
        _approval(package),
        _digest("training image", str(passport.get("image") or ""), client),
        _digest("inference image", containers[0].get("Image", ""), client),
    ]


def _verify_members(members: Mapping[str, Member], passport: Mapping[str, Any]) -> list[Finding]:
    if not passport:
        return [Finding(False, "passport.json", "missing or no JSON object: the artifact was made without a passport")]
    if passport.get("format") != 1:
        detail = f"has format {passport.get('format')!r}, this command reads 1"
        return [Finding(False, "passport.json", detail)]
    named = _mapping(passport, "files")
    files = sorted({*named, *members, *_FILES} - {"passport.json"})
    record = _json(members, "model.json")
    return [
        Finding(True, "passport.json", f"sha256 {members['passport.json'].sha256}"),
        *(_file(name, members.get(name), named.get(name)) for name in files),
        *(_same(f"model.json: {key}", record.get(key), passport.get(key)) for key in ("hyperparameters", "metrics")),
        _same(
            "model.json: data.fingerprint",
            _mapping(record, "data").get("fingerprint"),
            _mapping(passport, "data").get("fingerprint"),
        ),
        Finding(True, "code", f"sha256 {_code(passport)}"),
    ]


def _file(name: str, member: Member | None, meant: Any) -> Finding:
    if member is None:
        return Finding(False, name, "missing from the archive")
    if meant is None:
        return Finding(False, name, "in the archive, but not in the passport")
    if member.sha256 != meant:
        return Finding(False, name, f"changed: its sha256 is {member.sha256}, the passport's {meant}")
    return Finding(True, name, f"sha256 {member.sha256}")


def _verify_metadata(
    metadata: Mapping[str, str], members: Mapping[str, Member], passport: Mapping[str, Any]
) -> Iterator[Finding]:
    """The registry's word against the artifact's."""
    own = members["passport.json"].sha256 if "passport.json" in members else None
    for key, value in {
        "passport_sha256": own,
        "data_fingerprint": _mapping(passport, "data").get("fingerprint"),
        "code_sha256": _code(passport),
        "training_image": passport.get("image"),
    }.items():
        yield _same(f"registry: {key}", metadata.get(key), value)


def _same(what: str, one: Any, other: Any) -> Finding:
    if one is None or other is None:
        return Finding(False, what, "not recorded")
    if one != other:
        return Finding(False, what, f"{_short(one)}, but the passport says {_short(other)}")
    return Finding(True, what, _short(one))


def _approval(package: Mapping[str, Any]) -> Finding:
    status = package.get("ModelApprovalStatus", "unknown")
    who = _who(package.get("LastModifiedBy") or package.get("CreatedBy") or {})
    reason = package.get("ApprovalDescription")
    return Finding(
        True, "approval", f"{status}, last changed by {who or 'nobody named'}" + (f": {reason}" if reason else "")
    )


def _who(user: Mapping[str, Any]) -> str:
    return str(user.get("UserProfileName") or user.get("IamIdentity", {}).get("Arn") or "")


def _digest(what: str, image: str, client: Client) -> Finding:
    """Resolve an image's digest; that it cannot be is worth a note and no more: the passport holds without it."""
    parts = _IMAGE.fullmatch(image)
    if not parts:
        return Finding(True, what, f"not resolved: {image or 'none is named'}")
    if parts["digest"]:
        return Finding(True, what, parts["digest"])
    try:
        with plainly():
            found = client("ecr").describe_images(
                registryId=parts["account"],
                repositoryName=parts["repository"],
                imageIds=[{"imageTag": parts["tag"] or "latest"}],
            )
        return Finding(True, what, f"{found['imageDetails'][0]['imageDigest']} ({image})")
    except (KennelError, LookupError) as error:
        return Finding(True, what, f"not resolved: {error}")


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
        with plainly():
            size = s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
            if size > LARGEST:
                raise KennelError(f"{place} is refused: it is larger than {LARGEST >> 30} GiB.")
            s3.download_fileobj(bucket, key, file)
        file.seek(0)
        yield file


def _json(members: Mapping[str, Member], name: str) -> dict[str, Any]:
    """Return the object in the file `name`, or an empty one for a file that is missing or holds anything else."""
    try:
        content = json.loads(members[name].content) if name in members else {}
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _mapping(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _code(passport: Mapping[str, Any]) -> Any:
    return _mapping(passport, "code").get("sha256")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 200 else text[:199] + "…"
