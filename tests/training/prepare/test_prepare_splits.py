"""Splits, leaks between them, and the packed folders."""

import hashlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contracts import validate
from training import split as splits
from training.paths import Paths
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
    splits = prepared()["splits"]
    assert {name: splits[name]["per_class"] for name in SPLITS} == {
        "train": {"cat": 8, "dog": 8},
        "valid": {"cat": 1, "dog": 1},
        "test": {"cat": 1, "dog": 1},
    }


def test_every_image_is_in_exactly_one_split(two_classes: None, prepared: Prepare, opt_ml: Paths, png: Any) -> None:
    prepared()
    splits = _load(opt_ml).values()
    everything = {hashlib.sha256(png(number)).hexdigest() for number in [*range(10), *range(100, 110)]}
    assert set().union(*map(_hashes, splits)) == everything
    assert sum(len(split) for split in splits) == 20


def test_contents_decide_the_split_and_names_do_not(
    two_classes: None, prepared: Prepare, opt_ml: Paths, dataset: Path
) -> None:
    def test_split() -> set[str]:
        prepared()
        return _hashes(_load(opt_ml)["test"])

    first = test_split()
    assert test_split() == first
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


def test_any_sample_is_one_read_at_its_place(
    two_classes: None, prepared: Prepare, opt_ml: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "SHARD_BYTES", 2_000)
    prepared()
    split = _load(opt_ml)["train"]
    validate("index", json.loads((split.folder / "index.json").read_text("utf-8")))
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


def test_an_index_does_not_outlive_its_shards(
    two_classes: None, prepared: Prepare, opt_ml: Paths, refused: Callable[..., str]
) -> None:
    folder = opt_ml.processing_output("data") / "valid"
    prepared()
    (folder / "shard-00000.tar").unlink()
    (folder / "shard-00000.tar").mkdir()  # which ends the next run while it writes
    refused()
    assert not (folder / "index.json").exists()


def test_a_class_without_test_images_is_warned_about(add: Add, png: Any, prepared: Prepare) -> None:
    for number, name in enumerate(["train/cat/a", "train/dog/b", "train/fox/c", "valid/cat/d", "test/cat/e"]):
        add(f"{name}.png", png(number))
    assert prepared()["warnings"] == [
        "2 classes have no image in valid and are not measured there: dog, fox",
        "2 classes have no image in test and are not measured there: dog, fox",
    ]


def test_preparing_never_loads_torch(two_classes: None, opt_ml: Paths) -> None:
    code = "import sys; from training.__main__ import main; main(['prepare']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_splits_under_other_names_are_splits(add: Add, png: Any, prepared: Prepare) -> None:
    for number, split in enumerate(("Training", "Testing")):
        for label in ("glioma", "pituitary"):
            for picture in range(10):
                add(f"{split}/{label}/{picture}.png", png(1000 * number + 100 * len(label) + picture))
    report = prepared()
    assert report["classes"] == ["glioma", "pituitary"]
    assert report["splits"]["test"]["images"] == 20


def test_top_folders_that_hold_the_same_folders_are_refused(add: Add, png: Any, refused: Callable[..., str]) -> None:
    for number, name in enumerate(("one/a", "one/b", "two/a", "two/b")):
        add(f"{name}/1.png", png(number))
    assert "The folders one, two all hold a, b: if they are splits" in refused()


def test_a_class_may_be_called_train(add: Add, png: Any, prepared: Prepare) -> None:
    for number in range(36):
        add(f"{('bus', 'train', 'zebra')[number % 3]}/{number}.png", png(number))
    assert prepared()["classes"] == ["bus", "train", "zebra"]


def test_a_class_with_less_than_a_hundredth_of_the_largest_is_warned_of(add: Add, png: Any, prepared: Prepare) -> None:
    for number in range(400):
        add(f"common/{number}.png", png(number))
    for number in range(3):
        add(f"rare/{number}.png", png(1000 + number))
    assert any("less than a hundredth" in text and "rare" in text for text in prepared()["warnings"])
