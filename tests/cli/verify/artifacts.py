"""A small model's artifact, whole or changed."""

import hashlib
import io
import json
import tarfile
from typing import Any

from kennel.verify.command import Finding

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel:v1"
RECORD = {
    "format": 1,
    "hyperparameters": {"model": "resnet18"},
    "metrics": {"valid_accuracy": 0.9},
    "data": {"fingerprint": "ab12"},
}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def model(**changes: Any) -> dict[str, bytes]:
    """The files of a small model whose passport fits, but for `changes` to the passport."""
    record = json.dumps(RECORD).encode()
    files = {"model.json": record, "model.xml": b"<net/>", "model.bin": b"\0\1", "weights.pt": b"w" * 3_000_000}
    passport = {
        "format": 1,
        "data": {"fingerprint": "ab12"},
        "code": {"sha256": "c0de"},
        "image": IMAGE,
        "hyperparameters": RECORD["hyperparameters"],
        "metrics": RECORD["metrics"],
        "files": {name: sha(data) for name, data in files.items()},
        **changes,
    }
    return {**files, "passport.json": json.dumps(passport).encode()}


def pack(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def no_client(service: str) -> Any:
    raise AssertionError(f"a local file needs no {service}")


def wrong_ones(findings: list[Finding]) -> dict[str, str]:
    return {one.what: one.detail for one in findings if not one.ok}
