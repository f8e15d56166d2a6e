"""A picture that is too large is made smaller, and stays the picture that it was."""

import io
import os
import struct

import numpy as np
import pytest
from PIL import Image

from kennel.invoke import reduced

LIMIT = 200_000


def noise(width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), os.urandom(3 * width * height))


def packed(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(size: tuple[int, int] = (400, 200)) -> Image.Image:
    """The left half white, the right half black."""
    picture = Image.new("RGB", size)
    picture.paste("white", (0, 0, size[0] // 2, size[1]))
    return picture


def made(picture: bytes, limit: int = LIMIT) -> tuple[bytes, Image.Image]:
    smaller = reduced(picture, limit)
    assert smaller is not None
    return smaller, Image.open(io.BytesIO(smaller))


@pytest.mark.parametrize("size", [(1600, 1200), (1200, 1600), (3000, 40), (1, 3000)])
def test_it_fits_and_keeps_its_shape(size: tuple[int, int]) -> None:
    smaller, seen = made(packed(noise(*size)))
    assert len(smaller) <= LIMIT
    assert seen.size[0] / seen.size[1] == pytest.approx(size[0] / size[1], rel=0.05)


def test_a_small_picture_in_many_bytes_keeps_its_pixels() -> None:
    _, seen = made(packed(halves()))
    assert seen.size == (400, 200)


def test_the_shorter_side_falls_no_further_than_needed() -> None:
    assert min(made(packed(halves((4000, 2000))))[1].size) == 1024


def test_a_picture_longer_than_a_jpeg_can_be_is_shortened() -> None:
    assert made(packed(Image.new("RGB", (70_000, 20))))[1].size == (65_500, 19)


def test_it_stands_upright_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # what is stored on the left belongs on top
    _, seen = made(packed(halves(), exif=exif))
    assert seen.size == (200, 400)
    assert seen.getpixel((100, 10)) == (255, 255, 255)
    assert seen.getpixel((100, 390)) == (0, 0, 0)
    assert 0x0112 not in seen.getexif()


def test_odd_exif_data_cost_no_picture() -> None:
    odd = struct.pack("<HHHIHH", 2, 274, 3, 1, 6, 0) + struct.pack("<HHII", 37380, 10, 1, 38) + bytes(12)
    _, seen = made(packed(halves(), exif=b"Exif\0\0II*\0" + struct.pack("<I", 8) + odd))
    assert seen.size == (200, 400)


def test_alpha_is_dropped_and_not_blended() -> None:
    _, seen = made(packed(Image.new("RGBA", (50, 50), (255, 255, 255, 0))))
    assert seen.getpixel((25, 25)) == (255, 255, 255)


def test_of_sixteen_bits_the_upper_eight_count() -> None:
    grey = Image.fromarray(np.full((50, 50), 0x80FF, np.uint16))
    assert made(packed(grey))[1].getpixel((25, 25)) == (128, 128, 128)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "TIFF"])
def test_any_kind_that_can_be_read_here_may_come(kind: str) -> None:
    assert made(packed(halves(), kind))[1].format == "JPEG"


def test_cmyk_becomes_rgb() -> None:
    assert made(packed(halves().convert("CMYK"), "JPEG"))[1].mode == "RGB"


@pytest.mark.parametrize("body", [b"", b"hello", packed(noise(300, 300))[:5000], bytes(10_000)])
def test_what_is_no_whole_picture_is_none(body: bytes) -> None:
    assert reduced(body, LIMIT) is None
