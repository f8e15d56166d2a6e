"""A folder that takes an upload as S3 would, so that a run here begins with the very files that the cloud gets."""

import shutil
from pathlib import Path
from typing import IO, Any


class FolderBucket:
    """The three calls of an S3 client that `upload_dataset` makes; keys are paths below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def head_object(self, *, Bucket: str, Key: str) -> Any:
        """Nothing is ever there before: raises what S3 answers then."""
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        answer = {"Error": {"Code": "404"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
        raise ClientError(answer, "HeadObject")

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:
        self._place(Key).write_bytes(Body)

    def upload_fileobj(self, stream: IO[bytes], Bucket: str, Key: str, **more: Any) -> None:
        with self._place(Key).open("wb") as target:
            shutil.copyfileobj(stream, target)

    def _place(self, key: str) -> Path:
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
