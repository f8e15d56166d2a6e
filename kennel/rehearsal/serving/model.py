"""model.tar.gz on its way to /opt/ml/model."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from kennel.rehearsal.serving.fleet import EndpointError


def fetch_model(s3: Any, url: str, folder: Path) -> None:
    """Download and unpack; raises EndpointError when it cannot be read or holds what leaves its folder."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder.parent, suffix=".tar.gz") as archive:
        try:
            s3.download_fileobj(bucket, key, archive)
            archive.flush()
            with tarfile.open(archive.name) as tar:
                _unpack(tar, folder)
        except ClientError as error:
            raise EndpointError(f"Failed to download model data from {url}: {error}") from error
        except (tarfile.TarError, EOFError, OSError) as error:
            raise EndpointError(f"Failed to extract model data from {url}: {error}") from error


def _unpack(tar: tarfile.TarFile, folder: Path) -> None:
    """Files only. By hand: `extractall(filter="data")` came with Python 3.11.4, and Debian 12 has 3.11.2."""
    for member in tar:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
            raise tarfile.TarError(f"{member.name} is no plain file inside the archive")
        content = tar.extractfile(member)
        if content is not None:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)
