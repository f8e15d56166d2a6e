"""The same bytes in two splits, twice in one, under two classes; nearly the same picture in two splits."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training.prepare.datasets import SPLITS, Add, Prepare, Refused, encoded, left_out, sizes
from training.__main__ import main
from training.paths import Paths
from training.prepare import duplicates, run
from training.split import load_split


@pytest.fixture
def three_splits(add: Add, png: Any) -> None:
    """Ten different images in each split: 0 to 9, 40 to 49, 60 to 69, even numbers are cats."""
    for split, start in zip(SPLITS, (0, 40, 60), strict=True):
        for number in range(start, start + 10):
            add(f"{split}/{('cat', 'dog')[number % 2]}/{number}.png", png(number))


@pytest.fixture
def leaky(three_splits: None, add: Add, png: Any) -> None:
    add("train/cat/leak.png", png(60))
    add("valid/cat/leak.png", png(62))
    add("train/dog/leak.png", png(41))


PAIRS = [
    {"name": "train/cat/leak.png", "split": "train", "as": "test/cat/60.png", "in": "test"},
    {"name": "train/dog/leak.png", "split": "train", "as": "valid/dog/41.png", "in": "valid"},
    {"name": "valid/cat/leak.png", "split": "valid", "as": "test/cat/62.png", "in": "test"},
]


def _report(opt_ml: Paths) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((opt_ml.processing_output("report") / "prepare.json").read_text("utf-8"))
    return report


def _hashes(opt_ml: Paths, split: str) -> set[str]:
    return {sample.sha256 for sample in load_split(opt_ml.processing_output("data") / split).samples}


def test_images_in_two_splits_fail_the_job_and_are_named(leaky: None, refused: Refused) -> None:
    message = refused()
    assert message.startswith("3 images are byte for byte in two splits, ")
    assert "Duplicates=remove (--duplicates remove)" in message
    for pair in PAIRS:
        assert f"{pair['name']} ({pair['split']}) = {pair['as']} ({pair['in']})" in message


def test_a_job_that_fails_for_them_packs_nothing_and_lists_all(leaky: None, refused: Refused, opt_ml: Paths) -> None:
    refused()
    assert list(opt_ml.processing_output("data").iterdir()) == []
    assert _report(opt_ml)["identical"] == {"count": 3, "pairs": PAIRS, "removed": False}


def test_of_many_the_message_names_a_dozen_and_the_report_and_the_log_all(
    three_splits: None,
    add: Add,
    png: Any,
    opt_ml: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run, "SHOWN", 5)  # bounds the other lists
    for number in range(60):
        add(f"{'test' if number % 2 else 'train'}/cat/x{number // 2}.png", png(number // 2 + 100))
    assert main(["prepare"]) == 1
    message = (opt_ml.output / "message").read_text("utf-8")
    assert message.startswith("30 images are ")
    assert message.count(" = ") == 12
    assert len(_report(opt_ml)["identical"]["pairs"]) == 30
    assert capsys.readouterr().out.count("\nin two splits: ") == 30


def test_long_names_do_not_hide_what_to_do(three_splits: None, add: Add, png: Any, refused: Refused) -> None:
    for split in ("train", "test"):
        add(f"{split}/cat/{'long' * 60}.png", png(99))
        add(f"{split}/cat/{'name' * 60}.png", png(98))
    message = refused()
    assert len(message) <= 1001
    assert "--duplicates remove" in message


def test_on_demand_the_less_protected_one_of_each_goes(leaky: None, prepared: Prepare, opt_ml: Paths) -> None:
    report = prepared("--duplicates", "remove")
    assert sizes(report) == [10, 10, 10]
    assert report["identical"] == {"count": 3, "pairs": PAIRS, "removed": True}
    assert left_out(report) == {
        "train/cat/leak.png": "has the same bytes as test/cat/60.png in test",
        "train/dog/leak.png": "has the same bytes as valid/dog/41.png in valid",
        "valid/cat/leak.png": "has the same bytes as test/cat/62.png in test",
    }
    assert _hashes(opt_ml, "train").isdisjoint(_hashes(opt_ml, "valid") | _hashes(opt_ml, "test"))
    assert _hashes(opt_ml, "valid").isdisjoint(_hashes(opt_ml, "test"))


def test_an_image_in_all_three_splits_stays_in_test(three_splits: None, add: Add, png: Any, prepared: Prepare) -> None:
    for split in ("train", "valid"):
        add(f"{split}/cat/leak.png", png(60))
    report = prepared("--duplicates", "remove")
    assert (sizes(report), report["identical"]["count"]) == ([10, 10, 10], 2)


def test_on_demand_they_stay_and_are_named(leaky: None, prepared: Prepare) -> None:
    report = prepared("--duplicates", "report")
    assert sizes(report) == [12, 11, 10]
    assert report["identical"] == {"count": 3, "pairs": PAIRS, "removed": False}
    assert left_out(report) == {}


def test_a_class_that_goes_with_them_is_missed(three_splits: None, add: Add, png: Any, refused: Refused) -> None:
    add("train/fox/1.png", png(99))
    add("test/fox/1.png", png(99))
    assert "no readable image in train (fox)" in refused("prepare", "--duplicates", "remove")


def test_a_valid_split_that_is_made_here_is_compared_with_the_given_test(add: Add, png: Any, refused: Refused) -> None:
    for number in range(20):
        add(f"train/{('cat', 'dog')[number % 2]}/{number}.png", png(number))
        add(f"test/{('cat', 'dog')[number % 2]}/{number}.png", png(number))
    assert refused().startswith("20 images are ")


def test_copies_within_a_split_are_kept_once(three_splits: None, add: Add, png: Any, prepared: Prepare) -> None:
    add("train/cat/twin.png", png(2))
    add("train/cat/triplet.png", png(2))
    add("test/dog/twin.png", png(61))
    report = prepared()
    assert (sizes(report), report["copies"]["count"]) == ([10, 10, 10], 3)
    assert left_out(report) == {
        "train/cat/triplet.png": "has the same bytes as train/cat/2.png, which is kept",
        "train/cat/twin.png": "has the same bytes as train/cat/2.png, which is kept",
        "test/dog/twin.png": "has the same bytes as test/dog/61.png, which is kept",
    }


def test_without_splits_copies_never_fail_the_job(two_classes: None, add: Add, png: Any, prepared: Prepare) -> None:
    for number in range(10):
        add(f"cat/copy-{number}.png", png(number))
    report = prepared()
    assert (report["identical"]["count"], report["copies"]["count"]) == (0, 10)
    assert [report["splits"][name]["per_class"]["cat"] for name in SPLITS] == [8, 1, 1]


@pytest.mark.parametrize("option", ["fail", "remove", "report"])
def test_the_same_bytes_in_two_classes_are_left_out_in_both(
    option: str, three_splits: None, add: Add, png: Any, prepared: Prepare, opt_ml: Paths
) -> None:
    add("train/dog/really-a-cat.png", png(2))
    add("train/cat/really-a-dog.png", png(61))
    report = prepared("--duplicates", option)
    assert sizes(report) == [9, 10, 9]
    assert report["contradictory"] == {
        "count": 2,
        "groups": [
            ["test/dog/61.png", "train/cat/really-a-dog.png"],
            ["train/cat/2.png", "train/dog/really-a-cat.png"],
        ],
    }
    names = {name for group in report["contradictory"]["groups"] for name in group}
    assert left_out(report) == dict.fromkeys(names, "has the same bytes in several classes (cat, dog)")
    assert report["identical"]["count"] == 0


def test_a_class_whose_images_all_contradict_another_is_missed(
    two_classes: None, add: Add, png: Any, prepared: Prepare
) -> None:
    add("fox/1.png", png(1))
    report = prepared()
    assert report["classes"] == ["cat", "dog"]
    assert report["warnings"][0] == "1 class folders have no usable image, so the model will not know them: fox"


def _photo(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((200, 200), Image.Resampling.BICUBIC)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    return encoded(picture, "JPEG", quality=quality)


@pytest.mark.parametrize("cells", [1, 100, 4_000_000])
def test_a_smaller_and_recompressed_copy_is_reported_but_kept(
    cells: int, add: Add, prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_CELLS", cells)  # pairs that are compared at a time
    for number in range(30):
        split = "train" if number < 10 else "valid" if number < 20 else "test"
        add(f"{split}/{('cat', 'dog')[number % 2]}/{number}.jpg", _jpeg(_photo(number), 95))
    add("train/cat/copy.jpg", _jpeg(_photo(24).resize((120, 120)), 60))
    report = prepared()
    assert report["near_identical"]["pairs"] == [
        {"name": "train/cat/copy.jpg", "split": "train", "as": "test/cat/24.jpg", "in": "test"}
    ]
    assert sizes(report) == [11, 10, 10]


def test_the_same_bytes_are_not_nearly_the_same_and_hide_no_copy_that_is(
    three_splits: None, add: Add, prepared: Prepare
) -> None:
    for name in ("train/cat/copy.jpg", "test/cat/a.jpg"):
        add(name, _jpeg(_photo(1), 95))
    add("test/cat/b.jpg", _jpeg(_photo(1), 80))
    report = prepared("--duplicates", "report")
    assert [pair["as"] for pair in report["identical"]["pairs"]] == ["test/cat/a.jpg"]
    assert [pair["as"] for pair in report["near_identical"]["pairs"]] == ["test/cat/b.jpg"]


def test_no_scanned_digit_is_taken_for_another(add: Add, prepared: Prepare) -> None:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[::3], digits.target[::3], strict=True)):
        add(f"{label}/{number}.png", encoded(Image.fromarray((image * 15.9).astype(np.uint8)), "PNG"))
    report = prepared()
    assert sum(sizes(report)) == 599
    assert report["identical"]["count"] == 0
    assert report["near_identical"]["count"] <= 2


def test_plain_pictures_are_not_near_each_other(add: Add, prepared: Prepare) -> None:
    for number in range(12):
        split = ("train", "valid", "test")[number // 4]
        picture = Image.new("RGB", (50, 50), (number * 20, 100, 100))
        picture.putpixel((0, 0), (number, 0, 0))
        add(f"{split}/{('cat', 'dog')[number % 2]}/{number}.jpg", _jpeg(picture, 90))
    assert prepared()["near_identical"]["count"] == 0
