"""Pictures of every mode, kind and state: taken with their colours, or left out with a reason."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training.prepare.datasets import Add, Prepare, encoded, left_out, sizes
from training.transform import open_rgb

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
FRAMES = [Image.new("RGB", (9, 9), colour) for colour in (RED, GREEN, BLUE)]
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))


def png(kind: int, bits: int, pixel: bytes, side: int = 20) -> bytes:
    """A PNG of one colour in modes that Pillow does not write; `kind` is PNG's colour type."""
    rows = (b"\0" + pixel * side) * side
    head = struct.pack(">IIBBBBB", side, side, bits, kind, 0, 0, 0)
    return chunks((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def chunks(*parts: tuple[bytes, bytes]) -> bytes:
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(*pixel: int, side: int = 20) -> bytes:
    """A TIFF of one colour with 16 bits in each of three channels, which Pillow does not write."""
    data = struct.pack("<3H", *pixel) * side * side
    after = 8 + 2 + 9 * 12 + 4  # where the directory ends
    values = [(256, side), (257, side), (258, after), (259, 1), (262, 2), (273, after + 6), (277, 3), (278, side)]
    entries = [struct.pack("<HHII", tag, 4, 3 if tag == 258 else 1, value) for tag, value in values]
    entries[2] = struct.pack("<HHII", 258, 3, 3, after)  # bits of each channel, of type SHORT
    entries.append(struct.pack("<HHII", 279, 4, 1, len(data)))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<3H", 16, 16, 16) + data


def palette(**options: Any) -> bytes:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([1, 2, 3, 40, 50, 60])
    return encoded(image, "PNG", **options)


def turned(orientation: int, kind: str = "JPEG") -> bytes:
    """Lies as the camera was held: red above blue when upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.new("RGB", (32, 32), RED)
    upright.paste(BLUE, (0, 16, 32, 32))
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180}
    back |= {2: Image.Transpose.FLIP_LEFT_RIGHT, 4: Image.Transpose.FLIP_TOP_BOTTOM}
    back |= {5: Image.Transpose.TRANSPOSE, 7: Image.Transpose.TRANSVERSE}
    lying = upright.transpose(back[orientation]) if orientation in back else upright
    return encoded(lying, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


def animation(kind: str, **options: Any) -> bytes:
    first, *others = (frame.copy() for frame in FRAMES)  # Pillow keeps options of one kind in the picture
    return encoded(first, kind, save_all=True, append_images=others, **options)


# The colour in the upper left, of which JPEG may miss a little.
WHOLE = {
    "cmyk.jpg": (encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG"), RED),
    "cmyk.tif": (encoded(Image.new("CMYK", (20, 20), (255, 0, 255, 0)), "TIFF"), GREEN),
    "grey16.png": (encoded(Image.new("I;16", (20, 20), 40_000), "PNG"), (156, 156, 156)),
    "grey16.tif": (encoded(Image.new("I;16", (20, 20), 40_000), "TIFF"), (156, 156, 156)),
    "grey16_alpha.png": (png(4, 16, struct.pack(">2H", 40_000, 0)), (156, 156, 156)),
    "rgb16.png": (png(2, 16, struct.pack(">3H", 65_535, 40_000, 255)), (255, 156, 0)),
    "rgba16.png": (png(6, 16, struct.pack(">4H", 65_535, 40_000, 255, 9)), (255, 156, 0)),
    "rgb16.tif": (tiff(65_535, 40_000, 255), (255, 156, 0)),
    "palette.png": (palette(), (40, 50, 60)),
    "palette_alpha.png": (palette(transparency=b"\xff\x80"), (40, 50, 60)),
    "alpha.png": (encoded(Image.new("RGBA", (20, 20), (9, 8, 7, 0)), "PNG"), (9, 8, 7)),
    "alpha.webp": (encoded(Image.new("RGBA", (20, 20), (9, 8, 7, 99)), "WEBP", lossless=True), (9, 8, 7)),
    "grey_alpha.png": (encoded(Image.new("LA", (20, 20), (77, 0)), "PNG"), (77, 77, 77)),
    "one_bit.png": (encoded(Image.new("1", (20, 20), 1), "PNG"), (255, 255, 255)),
    "one_pixel.png": (encoded(Image.new("RGB", (1, 1), BLUE), "PNG"), BLUE),
    "bitmap.bmp": (encoded(FRAMES[1], "BMP"), GREEN),
    "UPPER.JPG": (encoded(Image.new("RGB", (20, 20), (1, 2, 3)), "JPEG"), (1, 2, 3)),
    "png_named.jpg": (encoded(FRAMES[2], "PNG"), BLUE),
    "camera.jpg": (animation("MPO", quality=95), RED),
    "broken_exif.jpg": (encoded(FRAMES[0], "JPEG", exif=b"Exif\0\0nothing that is TIFF"), RED),
    "lying_exif.jpg": (turned(9), RED),
    "short_exif.webp": (encoded(FRAMES[0], "WEBP", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f", lossless=True), RED),
    **{f"turned_{number}.jpg": (turned(number), RED) for number in range(1, 9)},
    "turned_6.png": (turned(6, "PNG"), RED),
}


@pytest.mark.parametrize("name", WHOLE)
def test_unusual_but_whole_pictures_are_taken(name: str, two_classes: None, add: Add, prepared: Prepare) -> None:
    add(f"cat/{name}", WHOLE[name][0])
    report = prepared()
    assert left_out(report) == {}
    assert sum(sizes(report)) == 21


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_their_colours_are_seen(name: str) -> None:
    data, colour = WHOLE[name]
    picture = open_rgb(data)
    assert picture.mode == "RGB"
    assert picture.getpixel((0, 0)) == pytest.approx(colour, abs=4)


@pytest.mark.parametrize(("name", "kind"), [("a.gif", "GIF"), ("a.webp", "WEBP"), ("a.png", "PNG"), ("a.tif", "TIFF")])
def test_of_an_animation_the_first_picture_counts_and_that_is_said(
    name: str, kind: str, two_classes: None, add: Add, prepared: Prepare
) -> None:
    data = animation(kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert open_rgb(data).getpixel((0, 0)) == RED
    add(f"cat/{name}", data)
    report = prepared()
    assert report["warnings"][0] == f"1 files contain several images, of which the first is used: cat/{name}"
    assert sum(sizes(report)) == 21


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"not a picture", "is not an image of a format that can be read"),
        (b"\x89PNG\r\n\x1a\n", "is not an image of a format that can be read"),
        (b"%PDF-1.7 pretends", "is not an image of a format that can be read"),
        (encoded(NOISE, "JPEG2000"), "is not an image of a format that can be read"),
        (encoded(Image.new("I", (9, 9), 70_000), "TIFF"), "has 32 bits per pixel"),
        (encoded(Image.new("F", (9, 9), 0.5), "TIFF"), "has 32 bits per pixel"),
    ],
    ids=["empty", "text", "head", "pdf", "jpeg2000", "integers", "floats"],
)
def test_what_is_no_picture_to_learn_from_is_left_out_and_named(
    data: bytes, reason: str, two_classes: None, add: Add, prepared: Prepare
) -> None:
    add("cat/bad.jpg", data)
    report = prepared()
    assert left_out(report)["cat/bad.jpg"].startswith(reason)
    assert sum(sizes(report)) == 20


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_truncated_picture_is_left_out(
    kind: str, share: float, two_classes: None, add: Add, prepared: Prepare
) -> None:
    whole = encoded(NOISE, kind)
    add("cat/cut.jpg", whole[: int(len(whole) * share)])
    assert list(left_out(prepared())) == ["cat/cut.jpg"]


def test_a_picture_that_is_damaged_inside_is_left_out(two_classes: None, add: Add, prepared: Prepare) -> None:
    whole = bytearray(encoded(NOISE, "PNG"))
    whole[len(whole) // 2] ^= 0xFF
    add("cat/damaged.png", bytes(whole))
    assert "cat/damaged.png" in left_out(prepared())


@pytest.mark.parametrize("side", [8_000, 60_000])
def test_a_picture_with_too_many_pixels_is_left_out_before_it_is_decoded(
    side: int, two_classes: None, add: Add, prepared: Prepare
) -> None:
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    add("cat/bomb.png", chunks((b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")))
    assert left_out(prepared())["cat/bomb.png"].startswith("has more than 50000000 pixels")


def test_kinds_of_pictures_that_are_not_read_are_named_rather_than_passed_over(
    two_classes: None, add: Add, prepared: Prepare
) -> None:
    names = ["cat/phone.HEIC", "cat/new.avif", "dog/camera.cr2"]
    for name in names:
        add(name, b"x")
    report = prepared()
    assert left_out(report) == dict.fromkeys(
        names, "is an image of a format that is not read; convert it to JPEG or PNG"
    )


@pytest.mark.parametrize(("brightest", "said"), [(4095, True), (4096, False)])
def test_sixteen_bit_pictures_that_use_twelve_bits_are_counted(
    brightest: int, said: bool, two_classes: None, add: Add, prepared: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        values = np.linspace(100 * number, brightest, 400, dtype=np.uint16).reshape(20, 20)
        add(f"cat/xray{number}.png", encoded(Image.fromarray(values), "PNG"))
    warnings = [text for text in prepared()["warnings"] if "3 16-bit images use 12 bits or fewer" in text]
    assert bool(warnings) == said
    assert ("warning: 3 16-bit images" in capsys.readouterr().out) == said


def test_pictures_of_kinds_that_the_endpoint_does_not_read_are_counted(
    two_classes: None, add: Add, prepared: Prepare
) -> None:
    for name, kind in {"a.tif": "TIFF", "b.bmp": "BMP", "c.jpg": "JPEG"}.items():
        add(f"cat/{name}", encoded(Image.effect_noise((20, 20), 90 + len(kind)), kind))
    assert prepared()["warnings"] == [
        "2 images are TIFF or BMP, which the endpoint does not read: callers must send such pictures as JPEG or PNG, "
        "as `kennel invoke` does by itself: cat/a.tif, cat/b.bmp"
    ]
