"""Tells an image's type by its first bytes, so that nothing else costs a call of the endpoint, which decodes it."""

from collections.abc import Callable

from classify.errors import NotAnImage, TooLarge, UnsupportedImage

SUPPORTED = "Send a JPEG, PNG, WebP or GIF."

Test = Callable[[bytes], bool]

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def _starts(*starts: bytes) -> Test:
    return lambda body: body.startswith(starts)


def _is_bmp(body: bytes) -> bool:
    """Two letters are little to go by; the length of the second header has few values."""
    return body.startswith(b"BM") and body[14:18] in {bytes((n, 0, 0, 0)) for n in (12, 40, 52, 56, 64, 108, 124)}


def _is_svg(body: bytes) -> bool:
    start = body[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    return start.startswith(b"<") and b"<svg" in start


_SUPPORTED: dict[str, Test] = {
    "image/jpeg": _starts(b"\xff\xd8\xff"),
    "image/png": _starts(b"\x89PNG\r\n\x1a\n"),
    "image/gif": _starts(b"GIF87a", b"GIF89a"),
    "image/webp": lambda body: body[:4] == b"RIFF" and body[8:12] == b"WEBP",
}

_UNSUPPORTED: dict[str, Test] = {
    "TIFF": _starts(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "BMP": _is_bmp,
    "AVIF": lambda body: body[4:8] == b"ftyp" and body[8:12] in (b"avif", b"avis"),
    "HEIC": lambda body: body[4:8] == b"ftyp" and body[8:12] in _HEIC_BRANDS,
    "SVG": _is_svg,
    "JPEG XL": _starts(b"\xff\x0a", b"\0\0\0\x0cJXL "),
    "JPEG 2000": _starts(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "Icon": _starts(b"\0\0\1\0"),
    "Photoshop": _starts(b"8BPS"),
    "PDF": _starts(b"%PDF-"),
}


def media_type(body: bytes, max_bytes: int) -> str:
    """Return the type, such as image/jpeg. Raise NotAnImage, UnsupportedImage or TooLarge for what is not taken."""
    if not body:
        raise NotAnImage(f"The image is empty. {SUPPORTED}")
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    for name, fits in _SUPPORTED.items():
        if fits(body):
            return name
    for name, fits in _UNSUPPORTED.items():
        if fits(body):
            raise UnsupportedImage(f"{name} is not supported. {SUPPORTED}")
    raise NotAnImage(f"These bytes are not an image. {SUPPORTED}")


def too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The image is larger than {max_bytes:,} bytes; send a smaller one.")
