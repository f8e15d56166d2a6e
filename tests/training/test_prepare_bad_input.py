"""What people upload by mistake or malice: it is reported and left out, or refused in one sentence."""

import io
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Add = Callable[[str, bytes], None]
Refused = Callable[..., str]
Prepare = Callable[..., dict[str, Any]]


_FRAME = Image.new("L", (9, 9), 9)


def _left_out(report: dict[str, Any]) -> dict[str, str]:
    assert report["left_out"]["count"] == len(report["left_out"]["files"])
    return {file["name"]: file["reason"] for file in report["left_out"]["files"]}


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def test_a_missing_folder_is_refused(refused: Refused) -> None:
    assert "give the job a data set" in refused()


def test_an_empty_folder_is_refused(dataset: Path, refused: Refused) -> None:
    assert "no readable image" in refused()


def test_images_outside_class_folders_are_refused(add: Add, png: Callable[..., bytes], refused: Refused) -> None:
    add("1.png", png(1))
    assert "no readable image in a class folder" in refused()


def test_one_class_is_refused_by_name(add: Add, png: Callable[..., bytes], refused: Refused) -> None:
    for number in range(5):
        add(f"cat/{number}.png", png(number))
    assert "one class only (cat)" in refused()


@pytest.mark.parametrize("split", ["test", "valid"])
def test_a_class_that_is_only_measured_is_refused(
    split: str, add: Add, png: Callable[..., bytes], refused: Refused
) -> None:
    for number, name in enumerate(["train/cat/1", "train/cat/2", "train/cat/3", "train/dog/1", f"{split}/fox/1"]):
        add(f"{name}.png", png(number))
    assert f"1 classes are in {split} but have no readable image in train (fox)" in refused()


def test_splits_and_classes_side_by_side_are_refused(two_classes: None, add: Add, png: Any, refused: Refused) -> None:
    add("train/cat/77.png", png(77))
    assert "train and beside them the class folders cat, dog" in refused()


def test_a_test_split_without_training_images_is_refused(add: Add, png: Any, refused: Refused) -> None:
    add("test/cat/1.png", png(1))
    add("test/dog/2.png", png(2))
    assert "no readable image in a train folder" in refused()


def test_two_images_a_class_are_too_few_and_it_says_so(add: Add, png: Any, refused: Refused) -> None:
    for number, name in enumerate(["cat/1", "cat/2", "dog/1", "dog/2"]):
        add(f"{name}.png", png(number))
    assert "at least three different images" in refused()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"not a picture", "is no image of a kind"),
        (b"\x89PNG\r\n\x1a\n", "is no image of a kind"),
        (b"%PDF-1.7 pretends", "is no image of a kind"),
    ],
)
def test_what_is_no_image_is_left_out_and_named(
    data: bytes, reason: str, two_classes: None, add: Add, prepared: Prepare
) -> None:
    add("cat/bad.jpg", data)
    report = prepared()
    assert reason in _left_out(report)["cat/bad.jpg"]
    assert sum(split["images"] for split in report["splits"].values()) == 20


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_a_truncated_image_is_left_out(kind: str, two_classes: None, add: Add, prepared: Prepare) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    whole = _encoded(Image.fromarray(pixels), kind)
    add("cat/cut.jpg", whole[: len(whole) * 2 // 3])
    assert "cat/cut.jpg" in _left_out(prepared())


@pytest.mark.parametrize("side", [8_000, 60_000])
def test_a_picture_with_too_many_pixels_is_left_out_before_it_is_decoded(
    side: int, two_classes: None, add: Add, prepared: Prepare
) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    add("cat/bomb.png", b"\x89PNG\r\n\x1a\n" + body)
    assert "has more than 50000000 pixels" in _left_out(prepared())["cat/bomb.png"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cmyk.jpg", _encoded(Image.new("CMYK", (20, 20), (0, 99, 30, 5)), "JPEG")),
        ("sixteen.png", _encoded(Image.fromarray(np.full((20, 20), 40_000, np.uint16)), "PNG")),
        ("palette.png", _encoded(Image.new("P", (20, 20), 3), "PNG", transparency=b"\x00\x80\xff\x10")),
        ("alpha.png", _encoded(Image.new("RGBA", (20, 20), (9, 8, 7, 6)), "PNG")),
        ("one_bit.png", _encoded(Image.new("1", (20, 20), 1), "PNG")),
        ("one_pixel.png", _encoded(Image.new("RGB", (1, 1)), "PNG")),
        (
            "animated.gif",
            _encoded(Image.new("L", (9, 9)), "GIF", save_all=True, append_images=[Image.new("L", (9, 9), 9)]),
        ),
        ("UPPER.JPG", _encoded(Image.new("RGB", (20, 20), (1, 2, 3)), "JPEG")),
        ("png_named.jpg", _encoded(Image.new("RGB", (20, 20), (4, 2, 3)), "PNG")),
    ],
)
def test_unusual_but_whole_images_are_taken(
    name: str, data: bytes, two_classes: None, add: Add, prepared: Prepare
) -> None:
    add(f"cat/{name}", data)
    report = prepared()
    assert _left_out(report) == {}
    assert sum(split["images"] for split in report["splits"].values()) == 21


def test_files_that_claim_nothing_and_hidden_ones_are_ignored(two_classes: None, add: Add, prepared: Prepare) -> None:
    add("README.txt", b"hello")
    add(".DS_Store", b"x")
    add("cat/._1.png", b"x")
    add("__MACOSX/cat/1.png", b"x")
    report = prepared()
    assert (_left_out(report), report["ignored_files"]) == ({}, 1)


def test_links_are_not_followed(two_classes: None, dataset: Path, tmp_path: Path, prepared: Prepare) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (dataset / "cat" / "link.png").symlink_to(tmp_path / "secret.png")
    assert _left_out(prepared()) == {"cat/link.png": "is a link or a special file"}


def _tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], encoding: str = "utf-8") -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding=encoding) as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_hostile_members_of_a_tar_are_left_out(two_classes: None, dataset: Path, png: Any, prepared: Prepare) -> None:
    link = tarfile.TarInfo("cat/link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    names = ["/etc/evil.png", "../../evil.png", "cat/../../../evil.png"]
    _tar(dataset / "images-00000.tar", [(link, b""), *((tarfile.TarInfo(name), png(50)) for name in names)])
    left_out = _left_out(prepared())
    assert left_out.pop("cat/link.png") == "is a link or a special file"
    assert set(left_out) == set(names)
    assert set(left_out.values()) == {"has a path that leads out of the archive"}


def test_names_that_are_not_utf8_are_taken(two_classes: None, dataset: Path, png: Any, prepared: Prepare) -> None:
    _tar(dataset / "a.tar", [(tarfile.TarInfo("cat/h\xe9.png"), png(50))], encoding="latin-1")
    assert prepared()["splits"]["train"]["images"] == 17


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100])
def test_a_file_that_is_no_tar_is_refused(data: bytes, two_classes: None, add: Add, refused: Refused) -> None:
    add("images-00000.tar", data)
    assert "images-00000.tar is no whole tar archive" in refused()


def test_a_tar_that_is_cut_short_is_refused(dataset: Path, png: Any, refused: Refused) -> None:
    path = dataset / "images-00000.tar"
    _tar(path, [(tarfile.TarInfo(f"cat/{number}.png"), png(number) * 20) for number in range(9)])
    path.write_bytes(path.read_bytes()[:9_000])
    assert "upload the data set again" in refused()


def test_a_compressed_archive_is_refused(two_classes: None, add: Add, refused: Refused) -> None:
    add("images.tar.gz", b"x")
    assert "images.tar.gz is compressed" in refused()
