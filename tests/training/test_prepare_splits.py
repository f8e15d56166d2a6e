"""Splits, leaks between them, and the packed folders."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.paths import Paths
from training.prepare import pack
from training.split import Split, load_split

Add = Callable[[str, bytes], None]
Prepare = Callable[..., dict[str, Any]]
SPLITS = ("train", "valid", "test")


def _load(opt_ml: Paths) -> dict[str, Split]:
    return {name: load_split(opt_ml.processing_output("data") / name) for name in SPLITS}


def _sizes(report: dict[str, Any]) -> list[int]:
    return [report["splits"][name]["images"] for name in SPLITS]


def _hashes(split: Split) -> set[str]:
    return {sample.sha256 for sample in split.samples}


def test_missing_splits_are_cut_evenly_from_each_class(two_classes: None, prepared: Prepare) -> None:
    splits = prepared("--valid-share", "0.2")["splits"]
    assert {name: splits[name]["per_class"] for name in SPLITS} == {
        "train": {"cat": 7, "dog": 7},
        "valid": {"cat": 2, "dog": 2},
        "test": {"cat": 1, "dog": 1},
    }


def test_every_image_is_in_exactly_one_split(two_classes: None, prepared: Prepare, opt_ml: Paths, png: Any) -> None:
    prepared()
    splits = _load(opt_ml).values()
    everything = {hashlib.sha256(png(number)).hexdigest() for number in [*range(10), *range(100, 110)]}
    assert set().union(*map(_hashes, splits)) == everything
    assert sum(len(split) for split in splits) == 20


def test_the_seed_decides_the_split_and_names_do_not(
    two_classes: None, prepared: Prepare, opt_ml: Paths, dataset: Path
) -> None:
    def test_split(*options: str) -> set[str]:
        prepared(*options)
        return _hashes(_load(opt_ml)["test"])

    first = test_split()
    assert test_split() == first
    assert any(test_split("--seed", str(seed)) != first for seed in range(1, 5))
    for number in range(10):
        (dataset / "cat" / f"{number}.png").rename(dataset / "cat" / f"renamed-{9 - number}.png")
    assert test_split() == first


@pytest.mark.parametrize("name", ["valid", "val", "Validation"])
def test_given_splits_are_kept_and_a_missing_one_comes_from_train(
    name: str, add: Add, png: Any, prepared: Prepare
) -> None:
    for number in range(20):
        label = ("cat", "dog")[number % 2]
        add(f"{name if number < 4 else 'train'}/{label}/{number}.png", png(number))
    assert _sizes(prepared()) == [14, 4, 2]


def test_a_folder_around_the_whole_tree_does_not_matter(add: Add, png: Any, prepared: Prepare) -> None:
    for number in range(6):
        add(f"upload/dogs/{'cat' if number < 3 else 'dog'}/deep/{number}.png", png(number))
    report = prepared()
    assert report["classes"] == ["cat", "dog"]
    assert _sizes(report) == [2, 2, 2]


def test_a_shard_and_plain_files_give_the_same_splits(
    two_classes: None, prepared: Prepare, opt_ml: Paths, dataset: Path
) -> None:
    prepared()
    plain = {name: (_hashes(split), split.fingerprint) for name, split in _load(opt_ml).items()}
    with tarfile.open(dataset / "images-00000.tar", "w") as archive:
        for label in ("cat", "dog"):
            archive.add(dataset / label, label)
    for file in dataset.glob("*/*.png"):
        file.unlink()
    prepared()
    assert {name: (_hashes(split), split.fingerprint) for name, split in _load(opt_ml).items()} == plain


def test_an_image_in_train_and_test_is_removed_from_train(add: Add, png: Any, prepared: Prepare, opt_ml: Paths) -> None:
    for split, start in (("train", 0), ("valid", 40), ("test", 60)):
        for number in range(start, start + 10):
            add(f"{split}/{('cat', 'dog')[number % 2]}/{number}.png", png(number))
    add("train/cat/leak.png", png(60))
    add("valid/cat/leak.png", png(62))
    add("train/dog/leak.png", png(41))
    report = prepared("--duplicates", "remove")
    assert _sizes(report) == [10, 10, 10]
    assert (report["identical"]["count"], report["identical"]["removed"]) == (3, True)
    assert {"name": "train/cat/leak.png", "split": "train", "as": "test/cat/60.png", "in": "test"} in report[
        "identical"
    ]["pairs"]
    assert _hashes(_load(opt_ml)["train"]).isdisjoint(_hashes(_load(opt_ml)["test"]))


def test_identical_images_can_be_kept_and_are_still_reported(add: Add, png: Any, prepared: Prepare) -> None:
    for split, start in (("train", 0), ("valid", 40), ("test", 60)):
        for number in range(start, start + 4):
            add(f"{split}/{('cat', 'dog')[number % 2]}/{number}.png", png(number))
    add("train/cat/leak.png", png(60))
    report = prepared("--duplicates", "report")
    assert (_sizes(report), report["identical"]["count"], report["identical"]["removed"]) == ([5, 4, 4], 1, False)


def _photo(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((200, 200), Image.Resampling.BICUBIC)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def test_a_smaller_and_recompressed_copy_is_reported_but_kept(add: Add, prepared: Prepare) -> None:
    for number in range(30):
        split = "train" if number < 10 else "valid" if number < 20 else "test"
        add(f"{split}/{('cat', 'dog')[number % 2]}/{number}.jpg", _jpeg(_photo(number), 95))
    add("train/cat/copy.jpg", _jpeg(_photo(24).resize((120, 120)), 60))
    report = prepared()
    assert report["near_identical"]["pairs"] == [
        {"name": "train/cat/copy.jpg", "split": "train", "as": "test/cat/24.jpg", "in": "test"}
    ]
    assert _sizes(report) == [11, 10, 10]


def test_no_scanned_digit_is_taken_for_another(add: Add, prepared: Prepare) -> None:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        stream = io.BytesIO()
        Image.fromarray((image * 15.9).astype(np.uint8)).save(stream, "PNG")
        add(f"{label}/{number}.png", stream.getvalue())
    report = prepared()
    assert sum(_sizes(report)) == 1797
    assert report["identical"]["count"] == 0
    assert report["near_identical"]["count"] <= 2


def test_plain_pictures_are_not_near_each_other(add: Add, prepared: Prepare) -> None:
    for number in range(12):
        split = ("train", "valid", "test")[number // 4]
        picture = Image.new("RGB", (50, 50), (number * 20, 100, 100))
        picture.putpixel((0, 0), (number, 0, 0))
        add(f"{split}/{('cat', 'dog')[number % 2]}/{number}.jpg", _jpeg(picture, 90))
    assert prepared()["near_identical"]["count"] == 0


def test_any_sample_is_one_read_at_its_place(
    two_classes: None, prepared: Prepare, opt_ml: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "SHARD_BYTES", 2_000)
    prepared()
    split = _load(opt_ml)["train"]
    assert len({sample.shard for sample in split.samples}) > 2
    for index, sample in enumerate(split.samples):
        assert hashlib.sha256(split.read(index)).hexdigest() == sample.sha256
        assert sample.name.startswith(split.classes[sample.label] + "/")
        with tarfile.open(split.folder / sample.shard) as archive:
            member = archive.extractfile(sample.name)
            assert member is not None
            assert member.read() == split.read(index)


def test_the_index_and_shards_are_the_same_bytes_again(two_classes: None, prepared: Prepare, opt_ml: Paths) -> None:
    folder = opt_ml.processing_output("data") / "train"
    prepared()
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    prepared()
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first


def test_a_class_without_test_images_is_warned_about(add: Add, png: Any, prepared: Prepare) -> None:
    for number, name in enumerate(["train/cat/a", "train/dog/b", "train/fox/c", "valid/cat/d", "test/cat/e"]):
        add(f"{name}.png", png(number))
    assert prepared()["warnings"] == [
        "2 classes have no image in valid and are not measured there: dog, fox",
        "2 classes have no image in test and are not measured there: dog, fox",
    ]


def test_without_weights_the_channel_says_so(two_classes: None, prepared: Prepare, opt_ml: Paths) -> None:
    prepared()
    assert json.loads((opt_ml.processing_output("weights") / "weights.json").read_text("utf-8")) == {"file": None}


def test_weights_are_passed_on_with_their_hash(two_classes: None, add: Add, prepared: Prepare, opt_ml: Paths) -> None:
    digest = hashlib.sha256(b"numbers").hexdigest()
    add("weights/r.pth", b"numbers")
    add("dataset.json", json.dumps({"fingerprint": "f00d", "weights": {"file": "r.pth", "sha256": digest}}).encode())
    report = prepared()
    folder = opt_ml.processing_output("weights")
    assert (folder / "r.pth").read_bytes() == b"numbers"
    assert json.loads((folder / "weights.json").read_text("utf-8")) == {"file": "r.pth", "sha256": digest}
    assert report["fingerprint"] == _load(opt_ml)["train"].fingerprint == "f00d"


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"file": "r.pth", "sha256": "00"}, "but dataset.json says 00"),
        ({"file": "none.pth", "sha256": "00"}, "weights/none.pth is missing"),
        ({"file": "../r.pth", "sha256": "00"}, "expected the file's name"),
        ("r.pth", "expected the file's name"),
    ],
)
def test_wrong_weights_are_refused(
    weights: Any, told: str, two_classes: None, add: Add, refused: Callable[..., str]
) -> None:
    add("weights/r.pth", b"numbers")
    add("dataset.json", json.dumps({"weights": weights}).encode())
    assert told in refused()


def test_preparing_never_loads_torch(two_classes: None, opt_ml: Paths) -> None:
    code = "import sys; from training.__main__ import main; main(['prepare']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
