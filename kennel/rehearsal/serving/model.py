"""model.tar.gz on its way to /opt/ml/model."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from kennel.rehearsal.serving.fleet import EndpointError
from kennel.verify.archive import unpack


def fetch_model(s3: Any, url: str, folder: Path) -> None:
    """Download and unpack; raises EndpointError when it cannot be read or holds what leaves its folder."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder.parent, suffix=".tar.gz") as archive:
        try:
            s3.download_fileobj(bucket, key, archive)
            archive.flush()
            with tarfile.open(archive.name) as tar:
                unpack(tar, folder)
        except ClientError as error:
            raise EndpointError(f"Failed to download model data from {url}: {error}") from error
        except (tarfile.TarError, EOFError, OSError) as error:
            raise EndpointError(f"Failed to extract model data from {url}: {error}") from error
