"""What people upload by mistake or malice: it is reported and left out, or refused in one sentence."""

from pathlib import Path
from typing import Any

import pytest

from tests.training.prepare.datasets import Add, Prepare, Refused, left_out
from training.prepare import run


def test_a_missing_folder_is_refused(refused: Refused) -> None:
    assert "give the job a data set" in refused()


def test_an_empty_folder_is_refused(dataset: Path, refused: Refused) -> None:
    assert "no readable image" in refused()


def test_images_outside_class_folders_are_refused(add: Add, png: Any, refused: Refused) -> None:
    add("1.png", png(1))
    assert "no readable image in a class folder" in refused()


def test_one_class_is_refused_by_name(add: Add, png: Any, refused: Refused) -> None:
    for number in range(5):
        add(f"cat/{number}.png", png(number))
    assert "one class only (cat)" in refused()


@pytest.mark.parametrize("split", ["test", "valid"])
def test_a_class_that_is_only_measured_is_refused(split: str, add: Add, png: Any, refused: Refused) -> None:
    for number, name in enumerate(["train/cat/1", "train/cat/2", "train/cat/3", "train/dog/1", f"{split}/fox/1"]):
        add(f"{name}.png", png(number))
    assert f"1 classes are in {split} but have no readable image in train (fox)" in refused()


def test_splits_and_classes_side_by_side_are_refused(two_classes: None, add: Add, png: Any, refused: Refused) -> None:
    add("train/cat/77.png", png(77))
    assert "the splits train and beside them the class folders cat, dog" in refused()


def test_a_test_split_without_training_images_is_refused(add: Add, png: Any, refused: Refused) -> None:
    add("test/cat/1.png", png(1))
    add("test/dog/2.png", png(2))
    assert "no readable image in a train folder" in refused()


def test_two_images_a_class_are_too_few_and_it_says_so(add: Add, png: Any, refused: Refused) -> None:
    for number, name in enumerate(["cat/1", "cat/2", "dog/1", "dog/2"]):
        add(f"{name}.png", png(number))
    assert "at least three different images" in refused()


def test_files_that_claim_nothing_and_hidden_ones_are_ignored(two_classes: None, add: Add, prepared: Prepare) -> None:
    add("README.txt", b"hello")
    add(".DS_Store", b"x")
    add("cat/._1.png", b"x")
    add("__MACOSX/cat/1.png", b"x")
    report = prepared()
    assert (left_out(report), report["ignored_files"]) == ({}, 1)


def test_links_are_not_followed(two_classes: None, dataset: Path, tmp_path: Path, prepared: Prepare) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (dataset / "cat" / "link.png").symlink_to(tmp_path / "secret.png")
    assert left_out(prepared()) == {"cat/link.png": "is a link or a special file"}


def test_a_compressed_archive_is_refused(two_classes: None, add: Add, refused: Refused) -> None:
    add("images.tar.gz", b"x")
    assert "images.tar.gz is compressed" in refused()


def test_links_to_folders_are_not_followed_and_named(
    two_classes: None, dataset: Path, tmp_path: Path, prepared: Prepare
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").write_bytes(b"secret")
    (dataset / "fox").symlink_to(tmp_path / "elsewhere")
    report = prepared()
    assert left_out(report) == {"fox": "is a link or a special file"}
    assert report["classes"] == ["cat", "dog"]


def test_a_class_of_one_image_is_learned_and_not_measured(
    two_classes: None, add: Add, png: Any, prepared: Prepare
) -> None:
    add("fox/1.png", png(50))
    report = prepared()
    assert report["splits"]["train"]["per_class"]["fox"] == 1
    assert report["warnings"] == [
        "1 classes have no image in valid and are not measured there: fox",
        "1 classes have no image in test and are not measured there: fox",
    ]


@pytest.mark.parametrize("content", [None, ("readme.txt", b"soon"), ("1.jpg", b""), ("1.heic", b"x")])
def test_a_class_without_images_is_missed_by_name(
    content: tuple[str, bytes] | None, two_classes: None, dataset: Path, add: Add, prepared: Prepare
) -> None:
    (dataset / "fox").mkdir()
    if content:
        add(f"fox/{content[0]}", content[1])
    report = prepared()
    assert report["classes"] == ["cat", "dog"]
    assert report["warnings"] == ["1 class folders have no usable image, so the model will not know them: fox"]


def test_a_class_without_images_is_missed_in_splits_too(dataset: Path, add: Add, png: Any, prepared: Prepare) -> None:
    for number in range(8):
        add(f"dogs/{'test' if number < 2 else 'train'}/{('cat', 'dog')[number % 2]}/{number}.png", png(number))
    (dataset / "dogs" / "train" / "fox").mkdir()
    assert prepared()["warnings"] == ["1 class folders have no usable image, so the model will not know them: fox"]


@pytest.mark.parametrize("damage", [b"", b"broken"])
def test_a_train_split_without_a_whole_image_is_refused(damage: bytes, add: Add, png: Any, refused: Refused) -> None:
    for number in range(4):
        add(f"test/{('cat', 'dog')[number % 2]}/{number}.png", png(number))
        add(f"train/{('cat', 'dog')[number % 2]}/{number}.png", damage)
    assert "no readable image in a train folder" in refused()


def test_where_every_image_is_broken_it_says_so(add: Add, refused: Refused) -> None:
    add("cat/1.png", b"broken")
    add("dog/1.png", b"broken")
    assert "no readable image in a class folder" in refused()


def test_what_is_left_out_is_listed_up_to_a_bound_and_counted_beyond(
    two_classes: None, add: Add, prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SHOWN", 5)
    for number in range(12):
        add(f"cat/broken-{number}.png", b"")
    listed = prepared()["left_out"]
    assert (listed["count"], len(listed["files"])) == (12, 5)
