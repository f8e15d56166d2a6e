"""The default data: real digits, always the same."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kennel.errors import KennelError
from kennel.rehearsal.samples import CLASSES, hold_out, in_turn, write_digits
from kennel.upload.folder import scan_folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


def test_all_scans_are_there_once_and_in_ten_classes(digits: Path) -> None:
    seen = scan_folder(digits)
    assert len(seen.images) == 1797
    assert set(seen.classes) == set(CLASSES)
    assert len({image.name.rsplit("/", 1)[1] for image in seen.images}) == 1797


def test_the_splits_are_stratified(digits: Path) -> None:
    counts = Counter(tuple(image.name.split("/")[:2]) for image in scan_folder(digits).images)
    assert all(26 <= counts[split, name] <= 28 for split in ("valid", "test") for name in CLASSES)
    assert all(121 <= counts["train", name] <= 129 for name in CLASSES)


def test_a_picture_shows_ink_on_white_or_black_over_the_whole_range(digits: Path) -> None:
    with Image.open(next((digits / "train" / "zero").iterdir())) as image:
        assert (image.size, image.mode, image.getextrema()) == ((8, 8), "L", (0, 255))


def test_the_same_seed_gives_the_same_tree_and_another_one_another(digits: Path, tmp_path: Path) -> None:
    def hashed(folder: Path) -> dict[str, str]:
        return {image.name: hashlib.sha256(image.path.read_bytes()).hexdigest() for image in scan_folder(folder).images}

    again, other = write_digits(tmp_path / "same"), write_digits(tmp_path / "other", seed=1)
    assert hashed(again) == hashed(digits)
    assert set(hashed(other)) != set(hashed(digits))


def test_the_source_of_the_scans_is_named(digits: Path) -> None:
    assert "Alpaydin" in (digits / "ATTRIBUTION.txt").read_text()


def test_the_pictures_to_show_are_always_the_same_and_of_as_many_classes_as_there_can_be() -> None:
    samples: list[dict[str, Any]] = [{"label": number // 10, "name": str(number)} for number in range(200)]
    shown = list(in_turn(samples))
    labels = [one["label"] for one in shown[:12]]
    assert len(set(labels)) == 12
    assert labels != sorted(labels)  # not the first classes of the alphabet
    assert sorted(one["name"] for one in shown) == sorted(one["name"] for one in samples)
    assert list(in_turn(samples)) == shown


def test_classes_that_are_held_out_are_in_no_split_and_their_test_pictures_are_shown(
    digits: Path, tmp_path: Path
) -> None:
    tree = scan_folder(digits)
    shown = hold_out(tree, 3, tmp_path / "kept", seed=1)
    kept = scan_folder(tmp_path / "kept")
    absent = set(tree.classes) - set(kept.classes)
    assert len(absent) == 3
    assert kept.splits == tree.splits
    expected = {image.name for image in tree.images if image.name.split("/")[1] not in absent}
    assert {image.name for image in kept.images} == expected
    assert {tuple(one.name.split("/")[:2]) for one in shown} == {("test", name) for name in absent}
    assert all(one.foreign and one.truth is None and one.path.is_file() for one in shown)
    again = hold_out(tree, 3, tmp_path / "again", seed=1)
    assert [one.name for one in again] == [one.name for one in shown]


def test_two_classes_must_be_left(digits: Path, tmp_path: Path) -> None:
    assert hold_out(scan_folder(digits), 8, tmp_path / "kept", seed=0)
    with pytest.raises(KennelError, match=r"--hold-out 9 leaves fewer than two of 10 classes; hold out fewer\."):
        hold_out(scan_folder(digits), 9, tmp_path / "other", seed=0)
