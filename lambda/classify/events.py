"""Parses what a caller sends, directly or through the HTTP API, into one request."""

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, NamedTuple

from classify.errors import InvalidRequest
from classify.image_types import too_large

SOURCES = ("url", "s3_uri", "image")
HOW = 'Send exactly one of {"url": "https://..."}, {"s3_uri": "s3://bucket/key"}, {"image": "<base64>"}'
_MAX_TOP_K = 1000

_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


class Request(NamedTuple):
    """A request: `source` is one of SOURCES, `value` the URL or URI as text or the image as bytes.

    `top_k` is the number of predictions, None for the default.
    """

    source: str
    value: str | bytes
    top_k: int | None = None


def is_http(event: Any) -> bool:
    """Return whether the HTTP API sent this event (payload format 2.0)."""
    context = event.get("requestContext") if isinstance(event, dict) else None
    return isinstance(context, dict) and "http" in context


def parse(event: Any, max_bytes: int) -> Request:
    """Return the request. Raise InvalidRequest, or TooLarge for an image that is refused before it is decoded."""
    if is_http(event):
        return _from_http(event, max_bytes)
    return _from_fields(event, max_bytes)


def _from_fields(fields: Any, max_bytes: int) -> Request:
    if not isinstance(fields, dict):
        raise InvalidRequest(f"The request must be a JSON object. {HOW}.")
    if unknown := sorted(str(name) for name in fields if name not in (*SOURCES, "top_k")):
        raise InvalidRequest(f"Unknown field {json.dumps(unknown[0][:40])}. {HOW}, and perhaps top_k.")
    given = [(name, fields[name]) for name in SOURCES if fields.get(name) is not None]
    if len(given) != 1:
        raise InvalidRequest(f"There {'is no image' if not given else 'are several images'}. {HOW}.")
    [(source, value)] = given
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{source} must be a string that is not empty. {HOW}.")
    return Request(source, _image(value, max_bytes) if source == "image" else value, _top_k(fields.get("top_k")))


def _from_http(event: Mapping[str, Any], max_bytes: int) -> Request:
    kind = _content_type(event.get("headers"))
    body = _body(event, max_bytes)
    top_k = _top_k_of_query(event.get("queryStringParameters"))
    if kind in ("", "application/json"):
        request = _from_fields(_json(body), max_bytes)
        return request._replace(top_k=request.top_k or top_k)
    if kind.startswith("image/") or kind in ("application/octet-stream", "application/x-image"):
        return Request("image", body, top_k)
    raise InvalidRequest(
        "Send Content-Type application/json with a JSON object, or image/jpeg or the like with an image."
    )


def _content_type(headers: Any) -> str:
    if not isinstance(headers, dict):
        return ""
    values = (value for name, value in headers.items() if str(name).lower() == "content-type")
    return str(next(values, "")).partition(";")[0].strip().lower()


def _body(event: Mapping[str, Any], max_bytes: int) -> bytes:
    body = event.get("body")
    if not isinstance(body, str) or not body:
        raise InvalidRequest(f"The body is empty. {HOW} as JSON, or an image as the body.")
    if event.get("isBase64Encoded"):
        return _image(body, 2 * max_bytes)  # JSON with an image in base64 is longer than the image
    return body.encode("utf-8", "replace")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The body is not valid JSON. {HOW}.") from error


def _image(text: str, max_bytes: int) -> bytes:
    """Return the bytes of base64 text, which may have line breaks and the prefix of a data URL."""
    if len(text) > 1.5 * max_bytes + 1000:  # 4/3, and line breaks
        raise too_large(max_bytes)
    head = _DATA_URL.match(text)
    try:
        return b64decode("".join(text[head.end() if head else 0 :].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("The image is not valid base64 (RFC 4648, with padding).") from error


def _top_k(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_TOP_K:
        raise InvalidRequest(f"top_k must be a whole number from 1 to {_MAX_TOP_K}.")
    return value


def _top_k_of_query(query: Any) -> int | None:
    text = query.get("top_k") if isinstance(query, dict) else None
    if text is None:
        return None
    return _top_k(int(text) if isinstance(text, str) and re.fullmatch("[0-9]{1,6}", text) else text)
