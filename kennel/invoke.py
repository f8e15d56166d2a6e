"""Asks the deployed function what is on a picture."""

import base64
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kennel.aws import plainly
from kennel.errors import KennelError

PAYLOAD_LIMIT = 6 * 2**20  # bytes of a synchronous Lambda request
_ENVELOPE = 1024  # room for the JSON around the picture
FILE_LIMIT = (PAYLOAD_LIMIT - _ENVELOPE) * 3 // 4  # base64 makes four bytes of three


class Refused(KennelError):
    """The function answered with an error of its own."""

    def __init__(self, code: str, message: str, request_id: str = "") -> None:
        super().__init__(f"{message.rstrip('.')} ({code}{', request ' + request_id if request_id else ''}).")
        self.code = code


def payload(picture: str, top_k: int | None = None) -> dict[str, Any]:
    """Return the event for a URL, an s3:// address or a file; raises KennelError for a file that cannot be sent.

    A picture too large for a request is sent reduced, and stderr says so.
    """
    more = {} if top_k is None else {"top_k": top_k}
    if picture.startswith(("https://", "http://")):
        return {"url": picture, **more}
    if picture.startswith("s3://"):
        return {"s3_uri": picture, **more}
    return {"image": base64.b64encode(_read(Path(picture))).decode("ascii"), **more}


def classify(client: Any, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Invoke `function` (an alias's ARN) and return its answer.

    Raises Refused for an error of the function's own, KennelError where it broke or could not be called.
    """
    with plainly():
        answer = client.invoke(FunctionName=function, Payload=json.dumps(payload).encode())
    body = _parsed(answer["Payload"].read())
    if answer.get("FunctionError"):
        raise KennelError(f"The function broke: {body.get('errorMessage', 'no reason given')}; its log says more.")
    if "error" in body:
        error = body["error"]
        raise Refused(str(error.get("code")), str(error.get("message")), str(body.get("request_id", "")))
    if not isinstance(body.get("predictions"), list) or not body["predictions"]:
        raise KennelError(f"The function's answer has no predictions: {json.dumps(body)[:200]}.")
    return body


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise KennelError(f"{path} {'is no file' if path.exists() else 'does not exist'}; give an image file or a URL.")
    size = path.stat().st_size
    if size == 0:
        raise KennelError(f"{path} is empty.")
    try:
        return path.read_bytes() if size <= FILE_LIMIT else _smaller(path, size)
    except OSError as error:
        raise KennelError(f"{path} cannot be read ({error.strerror}).") from error


def _smaller(path: Path, size: int) -> bytes:
    from kennel.reduce import reduced

    holds = f"{path} has {size / 1e6:.1f} MB; a request to Lambda holds {FILE_LIMIT / 1e6:.1f} MB"
    smaller = reduced(path.read_bytes(), FILE_LIMIT)
    if smaller is None:
        raise KennelError(
            f"{holds}, and it is no picture that could be reduced here: make it smaller, "
            "or copy it to photos/ in the data bucket and pass its s3:// address."
        )
    print(f"{holds}: it is sent as a JPEG of {smaller.width} x {smaller.height} pixels.", file=sys.stderr)
    return smaller.jpeg


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise KennelError(f"The function answered something else than a JSON object: {raw[:100]!r}.")
    return body
