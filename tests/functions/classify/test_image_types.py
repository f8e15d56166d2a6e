"""What the first bytes decide, before the endpoint is called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.errors import ClassifyError, NotAnImage, TooLarge, UnsupportedImage
from classify.image_types import media_type
from tests.functions.fakes import PNG, Endpoint, base64_of, code_of, picture, unhurried

BOUND = 1_000_000


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_the_four_kinds_are_known_by_their_bytes(kind: str) -> None:
    assert media_type(picture(kind), BOUND) == f"image/{kind.lower()}"


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "AVIF", "JPEG2000", "ICO", "PDF"])
def test_other_real_pictures_are_unsupported(kind: str) -> None:
    with pytest.raises(UnsupportedImage, match="Send a JPEG, PNG, WebP or GIF"):
        media_type(picture(kind, size=16), BOUND)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypavis\0\0\0\0", "AVIF"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'\xef\xbb\xbf <?xml version="1.0"?>\n<!-- x --><svg/>', "SVG"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"8BPS\0\x01", "Photoshop"),
    ],
)
def test_other_kinds_are_named(body: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=f"^{name} is not supported"):
        media_type(body, BOUND)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"BMW is a car of which there are many",
        b"<html></html>",
        b"\0" * 100,
        PNG[1:],
        b"RIFF\0\0\0\0WAVE",
    ],
)
def test_anything_else_is_no_picture(body: bytes) -> None:
    with pytest.raises(NotAnImage):
        media_type(body, BOUND)


def test_a_picture_may_have_just_the_bound() -> None:
    assert media_type(PNG, len(PNG)) == "image/png"
    with pytest.raises(TooLarge):
        media_type(PNG, len(PNG) - 1)


@unhurried
@given(st.binary())
def test_any_bytes_are_told_apart(body: bytes) -> None:
    try:
        assert media_type(body, BOUND).startswith("image/")
    except ClassifyError as error:
        assert isinstance(error, NotAnImage | UnsupportedImage)


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"hello", "not_an_image"), (picture("BMP"), "unsupported_image"), (PNG + bytes(2000), "too_large")],
)
def test_anything_but_a_picture_is_refused_before_the_endpoint_is_called(
    endpoint: Endpoint, environment: pytest.MonkeyPatch, body: bytes, code: str
) -> None:
    environment.setenv("MAX_BYTES", "1000")
    assert code_of({"image": base64_of(body)}) == code
    assert endpoint.calls == []


def test_a_huge_text_is_refused_before_it_is_decoded(endpoint: Endpoint, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MAX_BYTES", "1000")
    assert code_of({"image": "!" * 10_000}) == "too_large"
