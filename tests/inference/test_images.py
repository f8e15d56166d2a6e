"""Whatever bytes come: an upright RGB picture or a refusal."""

import io
import itertools
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inference import images
from inference.errors import Refused
from inference.images import decode
from tests.inference.tiny import picture

LIMIT = 10_000  # pixels

# White, red / blue, black: every turn and flip of it is another picture.
CORNERS = np.array([[[255, 255, 255], [255, 0, 0]], [[0, 0, 255], [0, 0, 0]]], np.uint8)


def encoded(image: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def first_pixel(body: bytes) -> tuple[int, ...]:
    image = decode(body, LIMIT)
    assert image.mode == "RGB"
    return tuple(np.asarray(image)[0, 0].tolist())


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, CORNERS),
        (2, CORNERS[:, ::-1]),
        (3, CORNERS[::-1, ::-1]),
        (4, CORNERS[::-1]),
        (5, CORNERS.transpose(1, 0, 2)),
        (6, np.rot90(CORNERS, -1)),
        (7, np.rot90(CORNERS, 2).transpose(1, 0, 2)),
        (8, np.rot90(CORNERS)),
    ],
)
def test_a_photo_is_turned_as_its_camera_was_held(orientation: int, turned: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = encoded(Image.fromarray(CORNERS), "PNG", exif=exif)
    assert np.array_equal(np.asarray(decode(body, LIMIT)), turned)


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        body = encoded(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert first_pixel(body) == (255, 0, 0), kind


def test_alpha_is_dropped_as_in_training() -> None:
    assert first_pixel(encoded(Image.new("RGBA", (4, 4), (10, 200, 30, 0)), "PNG")) == (10, 200, 30)
    assert first_pixel(encoded(Image.new("LA", (4, 4), (77, 0)), "PNG")) == (77, 77, 77)


def test_a_palette_with_transparency_keeps_its_colours() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([1, 2, 3, 40, 50, 60])
    assert first_pixel(encoded(image, "PNG", transparency=b"\xff\x80")) == (40, 50, 60)
    assert first_pixel(encoded(image, "GIF", transparency=1)) == (40, 50, 60)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.new("L", (4, 4), 99), (99, 99, 99)),
        (Image.new("I;16", (4, 4), 65_535), (255, 255, 255)),
        (Image.new("I;16", (4, 4), 40_000), (156, 156, 156)),
        (Image.new("I;16", (4, 4), 255), (0, 0, 0)),
    ],
)
def test_grey_becomes_three_equal_channels(image: Image.Image, expected: tuple[int, ...]) -> None:
    assert first_pixel(encoded(image, "PNG")) == expected


def test_cmyk_becomes_rgb() -> None:
    red, green, blue = first_pixel(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert red > 240
    assert max(green, blue) < 15


def test_the_limit_is_on_pixels_and_includes_itself() -> None:
    assert decode(picture("PNG", size=(100, 100)), LIMIT).size == (100, 100)
    with pytest.raises(Refused, match="more than 10000 pixels") as caught:
        decode(picture("PNG", size=(101, 100)), LIMIT)
    assert caught.value.status == 413


def test_a_header_that_claims_a_giant_is_too_large_whatever_follows() -> None:
    body = bytearray(picture("PNG"))
    body[16:24] = (60_000).to_bytes(4, "big") * 2
    body[29:33] = zlib.crc32(bytes(body[12:29])).to_bytes(4, "big")
    with pytest.raises(Refused) as caught:
        decode(bytes(body), LIMIT)
    assert (caught.value.status, caught.value.code) == (413, "too_large")


def test_a_jpeg_of_more_passes_than_a_camera_writes_is_refused_before_it_is_decoded() -> None:
    body = picture("JPEG", progressive=True)
    scan = body[body.index(b"\xff\xda") : -2]
    assert decode(body, LIMIT).size == (60, 50)
    with pytest.raises(Refused, match="seconds to decode") as caught:
        decode(body[:-2] + scan * 200 + body[-2:], LIMIT)
    assert (caught.value.status, caught.value.code) == (413, "too_large")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_a_picture_that_takes_too_long_is_given_up(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = encoded(Image.effect_noise((400, 400), 80), kind)
    times = itertools.count(0.0, 1.0)  # a second passes whenever the decoder asks for more
    monkeypatch.setattr("inference.images.time.thread_time", lambda: next(times))
    monkeypatch.setattr(images, "_DECODE_SECONDS", 2.5)
    with pytest.raises(Refused, match=r"more than 2.5 seconds to decode") as caught:
        decode(body, 1_000_000)
    assert (caught.value.status, caught.value.code) == (413, "too_large")


def test_an_upright_rgb_picture_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("copied")

    monkeypatch.setattr(Image.Image, "copy", refuse)
    monkeypatch.setattr(Image.Image, "convert", refuse)
    assert decode(picture("JPEG"), LIMIT).size == (60, 50)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "ICO", "JPEG2000", "AVIF"])
def test_other_kinds_are_told_from_garbage(kind: str) -> None:
    with pytest.raises(Refused) as caught:
        decode(picture(kind), LIMIT)
    assert (caught.value.status, caught.value.code) == (415, "unsupported_image")


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF"]), st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=9)))
)
def test_damaged_bytes_end_in_a_picture_or_a_refusal(kind: str, damage: list[tuple[int, bytes]]) -> None:
    body = bytearray(picture(kind))
    for place, patch in damage:
        body[place % len(body) : place % len(body) + len(patch)] = patch
    try:
        assert decode(bytes(body), LIMIT).mode == "RGB"
    except Refused as refused:
        assert refused.status in (400, 413, 415)
