"""What a request may look like."""

from starlette.datastructures import Headers
from starlette.requests import Request

from inference.errors import Refused

_BODIES = ("application/x-image", "application/octet-stream")
_ANSWERS = ("application/json", "application/*", "*/*")


def check_headers(headers: Headers) -> None:
    """Raises Refused (406, 415) before a byte of the body is read. No Content-Type counts as octet-stream."""
    kind = _kind(headers.get("content-type", "")) or "application/octet-stream"
    if not kind.startswith("image/") and kind not in _BODIES:
        raise Refused(
            415, "unsupported_image", f"Content-Type {kind[:100]} is not supported; send image/jpeg or alike."
        )
    wanted = [_kind(kind) for line in headers.getlist("accept") for kind in line.split(",") if kind.strip()]
    if wanted and not any(kind in _ANSWERS for kind in wanted):
        raise Refused(406, "not_acceptable", "The answer is application/json; accept that.")


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


def _kind(value: str) -> str:
    return value.split(";")[0].strip().lower()


def _too_large(max_bytes: int) -> Refused:
    return Refused(413, "too_large", f"The body has more than {max_bytes} bytes; send a smaller picture.")
