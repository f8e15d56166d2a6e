"""What a request may look like."""

import base64
import json
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request

from inference.errors import Refused

MOST_PICTURES = 16  # in a list

_JSON, _CSV = "application/json", "text/csv"
_BODIES = ("application/x-image", "application/octet-stream", _JSON)
_ANSWERS = {_JSON: _JSON, "application/*": _JSON, "*/*": _JSON, _CSV: _CSV, "text/*": _CSV}


def is_list(headers: Headers) -> bool:
    """Whether the body holds a JSON list of pictures. No Content-Type counts as octet-stream; raises Refused (415)."""
    kind = _kind(headers.get("content-type", "")) or "application/octet-stream"
    if not kind.startswith("image/") and kind not in _BODIES:
        message = f"Content-Type {kind[:100]} is not supported; send image/jpeg or alike, or application/json."
        raise Refused(415, "unsupported_image", message)
    return kind == _JSON


def wants_csv(headers: Headers) -> bool:
    """Of the formats that the caller accepts the one liked best, JSON where there is a choice; raises Refused (406)."""
    ranges = [part for line in headers.getlist("accept") for part in line.split(",") if part.strip()]
    liked = [(_quality(part), _ANSWERS[_kind(part)]) for part in ranges or ["*/*"] if _kind(part) in _ANSWERS]
    best = max((quality for quality, _ in liked), default=0.0)
    if best <= 0:
        raise Refused(406, "not_acceptable", "The answer is application/json or text/csv; accept one of them.")
    return (best, _JSON) not in liked


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body; raises Refused (413) at the first sign that it is longer than `max_bytes`."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


def pictures(body: bytes) -> list[str]:
    """The base64 texts of {"images": [...]}; raises Refused (400, 413)."""
    try:
        found = json.loads(body)
    # UnicodeDecodeError and JSONDecodeError are ValueErrors; deep nesting ends in RecursionError.
    except (ValueError, RecursionError) as error:
        raise _no_list() from error
    texts = found.get("images") if isinstance(found, dict) else None
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise _no_list()
    if len(texts) > MOST_PICTURES:
        message = f"The list has {len(texts)} pictures; send at most {MOST_PICTURES} in a request."
        raise Refused(413, "too_large", message)
    return texts


def from_base64(text: str) -> bytes:
    """Raises Refused (400)."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Refused(400, "not_an_image", "The picture is not in base64.") from error


def _kind(value: str) -> str:
    return value.split(";")[0].strip().lower()


def _quality(part: str) -> float:
    """The weight after `;q=`; one where there is none or it is no number."""
    given: Any = next((text.strip()[2:] for text in part.split(";")[1:] if text.strip().lower().startswith("q=")), "1")
    try:
        return float(given)
    except ValueError:
        return 1.0


def _too_large(max_bytes: int) -> Refused:
    return Refused(413, "too_large", f"The body has more than {max_bytes} bytes; send a smaller picture.")


def _no_list() -> Refused:
    message = 'The body must be {"images": ["<base64>", ...]} with one picture or more.'
    return Refused(400, "invalid_request", message)
