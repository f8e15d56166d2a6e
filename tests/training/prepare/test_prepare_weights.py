"""Pretrained weights on their way to training, and what training will learn with them or without."""

import hashlib
import json
from typing import Any

import pytest

from tests.training.prepare.datasets import Add, Prepare, Refused
from training.paths import Paths
from training.split import load_split

pytestmark = pytest.mark.usefixtures("two_classes")
DIGEST = hashlib.sha256(b"numbers").hexdigest()


@pytest.fixture
def weights(add: Add) -> None:
    add("weights/r.pth", b"numbers")
    add("dataset.json", json.dumps({"fingerprint": "f00d", "weights": {"file": "r.pth", "sha256": DIGEST}}).encode())


def _said(opt_ml: Paths) -> Any:
    return json.loads((opt_ml.processing_output("weights") / "weights.json").read_text("utf-8"))


def test_without_weights_the_channel_says_so(prepared: Prepare, opt_ml: Paths) -> None:
    prepared()
    assert _said(opt_ml) == {"file": None}


def test_weights_are_passed_on_with_their_hash(weights: None, prepared: Prepare, opt_ml: Paths) -> None:
    report = prepared()
    assert (opt_ml.processing_output("weights") / "r.pth").read_bytes() == b"numbers"
    assert _said(opt_ml) == report["weights"] == {"file": "r.pth", "sha256": DIGEST}
    train = load_split(opt_ml.processing_output("data") / "train")
    assert report["fingerprint"] == train.fingerprint == "f00d"


def test_weights_of_a_plain_folder_need_no_record(add: Add, prepared: Prepare, opt_ml: Paths) -> None:
    add("weights/r.pth", b"numbers")
    report = prepared()
    assert (report["mode"], report["warnings"]) == ("head", [])
    assert _said(opt_ml) == {"file": "r.pth", "sha256": DIGEST}


@pytest.mark.parametrize(("wanted", "with_weights"), [("auto", "head"), ("head", "head"), ("whole", "whole")])
def test_with_weights_the_mode_is_head_unless_told_otherwise(
    wanted: str, with_weights: str, weights: None, prepared: Prepare
) -> None:
    assert prepared("--mode", wanted)["mode"] == with_weights


def test_without_weights_the_mode_is_whole(prepared: Prepare) -> None:
    assert [prepared()["mode"], prepared("--mode", "whole")["mode"]] == ["whole", "whole"]


def test_a_head_without_weights_is_refused_before_anything_is_decoded(add: Add, refused: Refused) -> None:
    add("images-00000.tar", b"no tar, which would be an error of its own")
    assert "Mode head needs pretrained weights" in refused("prepare", "--mode", "head")


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"file": "r.pth", "sha256": "00"}, "but dataset.json says 00"),
        ({"file": "r.pth"}, "but dataset.json says None"),
        ({"file": "none.pth", "sha256": "00"}, "weights/none.pth is missing"),
        ({"file": "empty.pth", "sha256": hashlib.sha256(b"").hexdigest()}, "weights/empty.pth is empty"),
        ({"file": "../r.pth", "sha256": "00"}, "expected the file's name"),
        ({"file": "", "sha256": "00"}, "expected the file's name"),
        ({"file": ["r.pth"], "sha256": "00"}, "expected the file's name"),
        ("r.pth", "expected the file's name"),
    ],
)
def test_wrong_weights_are_refused(weights: Any, told: str, add: Add, refused: Refused) -> None:
    add("weights/r.pth", b"numbers")
    add("weights/empty.pth", b"")
    add("dataset.json", json.dumps({"weights": weights}).encode())
    assert told in refused()


def test_several_weights_of_which_none_is_named_are_refused(add: Add, refused: Refused) -> None:
    add("weights/r.pth", b"numbers")
    add("weights/s.pt", b"other numbers")
    assert "The folder weights has 2 files (r.pth, s.pt); leave only the one to start from." in refused()


@pytest.mark.parametrize("record", [b"{", b"[]", b"\xff"])
def test_a_broken_record_is_refused(record: bytes, add: Add, refused: Refused) -> None:
    add("dataset.json", record)
    assert "dataset.json" in (message := refused())
    assert "upload the data set again" in message
