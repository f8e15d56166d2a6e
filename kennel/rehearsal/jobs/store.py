"""SageMaker's transfers between S3 and a job's folders, with the credentials of the job's role."""

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from boto3.exceptions import S3UploadFailedError  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from kennel.rehearsal.jobs.contract import JobFailed


class Store:
    """Downloads and uploads through one boto3 S3 client; every refused call becomes a JobFailed that names the URI."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3

    def read(self, uri: str) -> bytes:
        """Return the content of one object."""
        bucket, key = split(uri)
        body: bytes = self._call("read", uri, "get_object", Bucket=bucket, Key=key)["Body"].read()
        return body

    def download_source(self, source: Mapping[str, Any], folder: Path) -> None:
        """Download all of an S3DataSource or S3Input into `folder`."""
        if source.get("S3DataDistributionType", "FullyReplicated") != "FullyReplicated":
            raise JobFailed(
                f"ClientError: {source['S3DataDistributionType']} cannot be rehearsed; FullyReplicated can."
            )
        uri, manifest = source["S3Uri"], source.get("S3DataType") == "ManifestFile"
        if not self._download(self._manifest(uri) if manifest else self._prefix(uri), folder):
            raise JobFailed(f"ClientError: no S3 objects found under {uri}: was the step that writes them run?")

    def download_if_any(self, uri: str, folder: Path) -> None:
        """Download all objects under `uri`, of which there may be none."""
        self._download(self._prefix(uri), folder)

    def upload(self, folder: Path, uri: str, key_id: str = "") -> None:
        """Upload every file below `folder`, encrypted with `key_id` if there is one."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(path, f"{uri.rstrip('/')}/{path.relative_to(folder).as_posix()}", key_id)

    def put(self, path: Path, uri: str, key_id: str = "") -> None:
        bucket, key = split(uri)
        extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key_id} if key_id else None
        self._call("written", uri, "upload_file", Filename=str(path), Bucket=bucket, Key=key, ExtraArgs=extra)

    def delete(self, uri: str) -> None:
        bucket, key = split(uri)
        self._call("deleted", uri, "delete_object", Bucket=bucket, Key=key)

    def _download(self, files: Iterator[tuple[str, str, str]], folder: Path) -> int:
        """Download `files` (bucket, key, path below `folder`); return how many there are."""
        folder.mkdir(parents=True, exist_ok=True)
        found = list(files)
        for bucket, key, relative in found:
            path = _inside(folder, relative)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._call("read", f"s3://{bucket}/{key}", "download_file", Bucket=bucket, Key=key, Filename=str(path))
        return len(found)

    def _call(self, verb: str, uri: str, operation: str, **request: Any) -> Any:
        try:
            return getattr(self._s3, operation)(**request)
        except (ClientError, S3UploadFailedError) as error:
            raise JobFailed(f"ClientError: {uri} cannot be {verb}: {error}") from error

    def _prefix(self, uri: str) -> Iterator[tuple[str, str, str]]:
        """Yield bucket, key and relative path of all objects in the folder `uri`, or of the one object of that name."""
        bucket, prefix = split(uri)
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        try:
            keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        except ClientError as error:
            raise JobFailed(f"ClientError: {uri} cannot be listed: {error}") from error
        base = prefix.rstrip("/") + "/" if prefix else ""
        for key in keys:
            if key == prefix and not key.endswith("/"):
                yield bucket, key, PurePosixPath(key).name
            elif key.startswith(base) and not key.endswith("/"):
                yield bucket, key, key.removeprefix(base)

    def _manifest(self, uri: str) -> Iterator[tuple[str, str, str]]:
        try:
            head, *files = json.loads(self.read(uri))
            bucket, prefix = split(head["prefix"])
        except (ValueError, TypeError, KeyError):
            raise JobFailed(
                f'ClientError: {uri} is no manifest; a manifest is [{{"prefix": "s3://..."}}, "file", ...].'
            ) from None
        for name in files:
            yield bucket, prefix + name, name


def split(uri: str) -> tuple[str, str]:
    """Return the bucket and the key of an s3:// URI."""
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


def _inside(folder: Path, relative: str) -> Path:
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts:
        raise JobFailed(f"ClientError: the object name {relative!r} would leave its folder.")
    return folder / path
