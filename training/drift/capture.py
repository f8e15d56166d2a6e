"""Captured requests as SageMaker writes them: JSON lines below yyyy/mm/dd/hh, each with a photo in base64.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html
"""

import base64
import binascii
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

LONGEST = 32 * 2**20  # bytes of a line: a photo of 6 MiB has 8 MiB in base64
PROBE = "kennel-probe"  # begins what a release's probes send as InferenceId or custom attributes
_PICTURES = ("image/", "application/x-image", "application/octet-stream")


@dataclass(frozen=True)
class Request:
    """One captured photo. `id` is what the caller sent as InferenceId, else SageMaker's own; `day` is yyyy-mm-dd."""

    id: str
    day: str
    image: bytes
    file: Path
    offset: int


class Captured:
    """The captured photos below a folder; `skipped` counts, by reason, the lines that hold none to look at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines = 0
        self.skipped: Counter[str] = Counter()
        self._seen: set[bytes] = set()

    def __iter__(self) -> Iterator[Request]:
        """Yield each photo once, in the order of the files' names, which is that of time; one line is in memory."""
        for file in sorted(self.folder.rglob("*.jsonl")):
            with file.open("rb") as stream:
                for offset, line in _lines(stream):
                    self.lines += 1
                    request = self._request(line, file, offset)
                    if request:
                        yield request

    def _request(self, line: bytes | None, file: Path, offset: int) -> Request | None:
        if line is None:
            return self._skip("longer than a photo can be")
        try:
            record = json.loads(line)
            about, sent = record["eventMetadata"], record["captureData"]["endpointInput"]
            if is_probe(about):
                return self._skip("probe of a release")
            if not str(sent.get("observedContentType", "image/")).startswith(_PICTURES):
                return self._skip("no single photo")
            image = base64.b64decode(sent["data"], validate=True)
            request_id = str(about.get("inferenceId") or about["eventId"])
            day = str(about["inferenceTime"])[:10]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
            return self._skip("broken line")
        digest = hashlib.sha256(image).digest()
        if digest in self._seen:  # a retry, which is no new observation
            return self._skip("same photo again")
        self._seen.add(digest)
        return Request(request_id, day, image, file, offset)

    def _skip(self, reason: str) -> Request | None:
        """Count a line that holds nothing to look at, and return that."""
        self.skipped[reason] += 1
        return None


def is_probe(about: dict[str, Any]) -> bool:
    """Return whether a line's metadata says that a release, and no caller, sent the request."""
    marks = (about.get("inferenceId"), about.get("customAttributes"))
    return any(PROBE in str(mark) for mark in marks if mark)


def read_image(file: Path, offset: int) -> bytes:
    """Return the photo of the line that begins at `offset`, as it was yielded before."""
    with file.open("rb") as stream:
        stream.seek(offset)
        record = json.loads(stream.readline())
    return base64.b64decode(record["captureData"]["endpointInput"]["data"])


def read_labels(folder: Path) -> dict[str, str]:
    """Return class by request id from ground-truth lines; the file whose name comes last counts, broken lines not.

    https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-model-quality-merge.html
    """
    labels: dict[str, str] = {}
    for file in sorted(folder.rglob("*.jsonl")) if folder.is_dir() else ():
        with file.open("rb") as stream:
            for _, line in _lines(stream):
                try:
                    record = json.loads(line or b"")
                    labels[str(record["eventMetadata"]["eventId"])] = str(record["groundTruthData"]["data"])
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue
    return labels


def _lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Yield offset and content of each line that is not blank; None for one that is longer than LONGEST."""
    while True:
        offset = stream.tell()
        line = stream.readline(LONGEST + 1)
        if not line:
            return
        if len(line) > LONGEST and not line.endswith(b"\n"):
            while (rest := stream.readline(LONGEST)) and not rest.endswith(b"\n"):
                pass
            yield offset, None
        elif line.strip():
            yield offset, line
