"""Custom resources: their Lambda functions call CodeBuild or run Node in the cloud, so stand-ins answer for them."""

from __future__ import annotations

import hashlib
import json

from kennel.rehearsal.cloud.cloudformation.types.resource import Made, Properties, Row


def _hash(made: Made) -> str:
    """The same image for the same source and build."""
    return hashlib.sha256(json.dumps(made.wanted, sort_keys=True).encode()).hexdigest()[:16]


def _nothing(properties: Properties) -> Properties:
    return {}


def _stand_in(kind: str, **attributes: str) -> Row:
    """No call is made; sts:GetCallerIdentity serves as the operation that does nothing."""
    return Row(
        type=kind,
        service="sts",
        create="GetCallerIdentity",
        shape=_nothing,
        ref=lambda made: f"local/{made.wanted['LogicalId']}:{_hash(made)}",
        attributes={"ImageTag": _hash, "ImageUri": lambda made: made.physical},
    )


STAND_INS = {
    "Custom::CDKContainerImageBuild": "no image is built by CodeBuild: jobs and server run from this checkout, "
    "or in images that `--images` builds; the image's name is made of its source",
    "Custom::S3AutoDeleteObjects": "nothing to empty: the embedded S3 ends with the rehearsal",
    "Custom::RegisteredModels": "nothing to unregister: the embedded model group ends with the rehearsal",
}
ROWS = [_stand_in(kind) for kind in STAND_INS]
