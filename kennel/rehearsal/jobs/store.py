"""SageMaker's transfers between S3 and a job's folders, with the credentials of the job's role."""

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boto3.exceptions import S3UploadFailedError  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from kennel.rehearsal.jobs.contract import JobFailed


class Store:
    """Downloads and uploads through one boto3 S3 client; every refused call becomes a JobFailed that names the URI."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3

    def read(self, uri: str) -> bytes:
        bucket, key = _split(uri)
        with _refusal("read", uri):
            body: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def download_source(self, source: Mapping[str, Any], folder: Path) -> None:
        """Download all of an S3DataSource or S3Input into `folder`."""
        distribution = source.get("S3DataDistributionType", "FullyReplicated")
        if distribution != "FullyReplicated":
            raise JobFailed(f"ClientError: {distribution} cannot be rehearsed; FullyReplicated can.")
        uri, manifest = source["S3Uri"], source.get("S3DataType") == "ManifestFile"
        if not self._download(self._manifest(uri) if manifest else self._prefix(uri), folder):
            raise JobFailed(f"ClientError: no S3 objects found under {uri}: was the step that writes them run?")

    def download_if_any(self, uri: str, folder: Path) -> None:
        """Download all objects under `uri`, of which there may be none."""
        self._download(self._prefix(uri), folder)

    def upload(self, folder: Path, uri: str, key_id: str) -> None:
        """Upload every file below `folder`, encrypted with `key_id` unless that is empty."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(path, f"{uri.rstrip('/')}/{path.relative_to(folder).as_posix()}", key_id)

    def put(self, path: Path, uri: str, key_id: str) -> None:
        bucket, key = _split(uri)
        extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key_id} if key_id else None
        with _refusal("written", uri):
            self._s3.upload_file(str(path), bucket, key, ExtraArgs=extra)

    def delete(self, uri: str) -> None:
        bucket, key = _split(uri)
        with _refusal("deleted", uri):
            self._s3.delete_object(Bucket=bucket, Key=key)

    def _download(self, files: Iterator[tuple[str, str, str]], folder: Path) -> bool:
        """Download `files` (bucket, key, path below `folder`); return whether there are any."""
        folder.mkdir(parents=True, exist_ok=True)
        found = list(files)
        for bucket, key, relative in found:
            if ".." in Path(relative).parts or Path(relative).is_absolute():
                raise JobFailed(f"ClientError: the object name {relative!r} would leave its folder.")
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            with _refusal("read", f"s3://{bucket}/{key}"):
                self._s3.download_file(bucket, key, str(path))
        return bool(found)

    def _prefix(self, uri: str) -> Iterator[tuple[str, str, str]]:
        """Yield bucket, key and relative path of all objects in the folder `uri`, or of the one object of that name."""
        bucket, prefix = _split(uri)
        with _refusal("listed", uri):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            keys = [item["Key"] for page in pages for item in page.get("Contents", []) if item["Key"][-1] != "/"]
        base = prefix.rstrip("/") + "/" if prefix else ""
        for key in keys:
            if key == prefix:
                yield bucket, key, Path(key).name
            elif key.startswith(base):
                yield bucket, key, key.removeprefix(base)

    def _manifest(self, uri: str) -> Iterator[tuple[str, str, str]]:
        try:
            head, *files = json.loads(self.read(uri))
            bucket, prefix = _split(head["prefix"])
        except (ValueError, TypeError, KeyError):
            raise JobFailed(
                f'ClientError: {uri} is no manifest; a manifest is [{{"prefix": "s3://..."}}, "file", ...].'
            ) from None
        for name in files:
            yield bucket, prefix + name, name


@contextmanager
def _refusal(verb: str, uri: str) -> Iterator[None]:
    try:
        yield
    except (ClientError, S3UploadFailedError) as error:
        raise JobFailed(f"ClientError: {uri} cannot be {verb}: {error}") from error


def _split(uri: str) -> tuple[str, str]:
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise JobFailed(f"ClientError: {uri!r} is no S3 URI (s3://bucket/key).")
    return bucket, key


def pack(folders: Sequence[Path], archive: Path) -> None:
    """Write the files of `folders` into one flat .tar.gz; where two have the same name, the first one counts.

    Compression level 1: weights hardly get smaller.
    """
    found = {path.name: path for folder in reversed(folders) for path in folder.iterdir()}
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name in sorted(found):
            tar.add(found[name], name)
