"""What the registry says of a model package, held to the artifact's own passport."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kennel.aws import plainly
from kennel.errors import KennelError
from kennel.verify.archive import Member
from kennel.verify.passport import NAME, Finding, mapping, read_json, same

_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[a-z.]+/(?P<repository>[^:@]+)"
    r"(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


def check_package(
    package: Mapping[str, Any], members: Mapping[str, Member], client: Callable[[str], Any]
) -> list[Finding]:
    """Compare DescribeModelPackage's answer with the artifact; resolve its images and name who approved it."""
    passport = read_json(members, NAME)
    containers = package.get("InferenceSpecification", {}).get("Containers") or [{}]
    return [
        *_metadata(package.get("CustomerMetadataProperties", {}), members, passport),
        _approval(package),
        _digest("training image", str(passport.get("image") or ""), client),
        _digest("inference image", containers[0].get("Image", ""), client),
    ]


def _metadata(
    metadata: Mapping[str, str], members: Mapping[str, Member], passport: Mapping[str, Any]
) -> Iterator[Finding]:
    own = members[NAME].sha256 if NAME in members else None
    for key, value in {
        "passport_sha256": own,
        "data_fingerprint": mapping(passport, "data").get("fingerprint"),
        "code_sha256": mapping(passport, "code").get("sha256"),
        "training_image": passport.get("image"),
    }.items():
        yield same(f"registry: {key}", metadata.get(key), value)


def _approval(package: Mapping[str, Any]) -> Finding:
    status = package.get("ModelApprovalStatus", "unknown")
    who = _who(package.get("LastModifiedBy") or package.get("CreatedBy") or {})
    reason = package.get("ApprovalDescription")
    return Finding(
        True, "approval", f"{status}, last changed by {who or 'nobody named'}" + (f": {reason}" if reason else "")
    )


def _who(user: Mapping[str, Any]) -> str:
    return str(user.get("UserProfileName") or user.get("IamIdentity", {}).get("Arn") or "")


def _digest(what: str, image: str, client: Callable[[str], Any]) -> Finding:
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
