"""Tar shards: hostile, broken, cut short, inside one another. None is unpacked, and no image in one is lost unseen."""

import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.training.prepare.datasets import Add, Prepare, Refused, left_out, sizes, tar


@pytest.fixture
def shard(dataset: Path, png: Any) -> Path:
    """Nine cats and nine dogs; the file is not yet in the data set's folder when a test changes it."""
    path = dataset / "images-00000.tar"
    tar(path, [(f"{('cat', 'dog')[number % 2]}/{number}.png", png(number)) for number in range(18)])
    return path


def _end(path: Path) -> int:
    """Where the last member's data ends."""
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    return last.offset_data + -(-last.size // 512) * 512


def test_a_shard_is_read_where_it_lies(shard: Path, prepared: Prepare) -> None:
    report = prepared()
    assert (sum(sizes(report)), report["classes"], left_out(report)) == (18, ["cat", "dog"], {})


def test_hostile_members_are_left_out(shard: Path, dataset: Path, png: Any, prepared: Prepare) -> None:
    outside = ["/etc/evil.png", "../../evil.png", "cat/../../../evil.png"]
    kinds = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE, "disk": tarfile.BLKTYPE}
    with tarfile.open(dataset / "images-00001.tar", "w") as archive:
        for name, kind in kinds.items():
            member = tarfile.TarInfo(f"cat/{name}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    tar(dataset / "images-00002.tar", [(name, png(50)) for name in outside])
    report = prepared()
    assert sum(sizes(report)) == 18
    assert left_out(report) == {
        **dict.fromkeys(outside, "has a path that leads out of the archive"),
        **{f"cat/{name}.png": "is a link or a special file" for name in kinds},
    }


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100, b"\xff" * 2000])
def test_a_file_that_is_no_tar_is_refused(data: bytes, two_classes: None, add: Add, refused: Refused) -> None:
    add("images-00000.tar", data)
    assert "images-00000.tar is not a complete tar archive" in refused()


@pytest.mark.parametrize("left", [0.02, 0.5, 0.93])
def test_a_tar_that_is_cut_short_is_refused(left: float, shard: Path, refused: Refused) -> None:
    shard.write_bytes(shard.read_bytes()[: int(_end(shard) * left)])
    assert "images-00000.tar is not a complete tar archive" in (message := refused())
    assert "upload the data set again" in message


@pytest.mark.parametrize("member", [3, 18])
def test_a_tar_that_is_cut_short_between_two_members_is_refused(member: int, shard: Path, refused: Refused) -> None:
    with tarfile.open(shard) as archive:
        ends = [one.offset for one in archive.getmembers()[1:]]
    shard.write_bytes(shard.read_bytes()[: [*ends, _end(shard)][member - 1]])
    assert "images-00000.tar is not a complete tar archive (its end is missing)" in refused()


def test_a_tar_that_is_damaged_in_the_middle_is_refused(shard: Path, refused: Refused) -> None:
    with tarfile.open(shard) as archive:
        header = archive.getmembers()[9].offset
    data = bytearray(shard.read_bytes())
    data[header + 3] ^= 0xFF  # in the name, which the header's checksum covers
    shard.write_bytes(data)
    assert f"(what follows byte {header} is damaged or another archive)" in refused()


def test_tars_that_were_merely_joined_are_refused(shard: Path, refused: Refused) -> None:
    shard.write_bytes(shard.read_bytes() * 2)
    assert f"(what follows byte {_end(shard)} is damaged or another archive)" in refused()


def test_any_number_of_zeros_may_follow(shard: Path, prepared: Prepare) -> None:
    shard.write_bytes(shard.read_bytes() + bytes(3 * 2**20))
    assert sum(sizes(prepared())) == 18


def test_an_empty_tar_beside_others_is_fine(shard: Path, dataset: Path, prepared: Prepare) -> None:
    tar(dataset / "images-00001.tar", [])
    assert sum(sizes(prepared())) == 18


@pytest.mark.parametrize("name", ["images-00000.tar", "cat/more.ZIP", "cat/more.tar.gz"])
def test_archives_in_an_archive_are_refused(name: str, shard: Path, dataset: Path, refused: Refused) -> None:
    tar(dataset / "outer.tar", [(name, shard.read_bytes())])
    assert f"outer.tar contains another archive, {name}" in refused()


@pytest.mark.parametrize("name", ["images.tar.gz", "dog/photos.zip", "images.TGZ"])
def test_a_compressed_archive_is_refused(name: str, two_classes: None, add: Add, refused: Refused) -> None:
    add(name, b"x")
    assert f"{name} is compressed" in refused()


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.REGTYPE])
def test_a_class_without_images_is_missed_in_a_shard_too(
    kind: bytes, shard: Path, dataset: Path, prepared: Prepare
) -> None:
    with tarfile.open(dataset / "images-00001.tar", "w") as archive:
        member = tarfile.TarInfo("fox" if kind == tarfile.DIRTYPE else "fox/readme.txt")
        member.type = kind
        archive.addfile(member)
    assert prepared()["warnings"] == ["1 class folders have no usable image, so the model will not know them: fox"]
