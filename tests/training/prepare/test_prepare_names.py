"""Names of files and class folders, however strange: none harms, none is lost, none becomes another."""

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from tests.training.prepare.datasets import Add, Prepare, Refused, left_out, sizes, tar
from training.paths import Paths
from training.prepare.dataset import printable
from training.split import Split, load_split

STRANGE = [
    "cat/two\nlines.png",
    'cat/it\'s "quoted".png',
    "cat/-rf.png",
    "cat/--help.png",
    "cat/$(reboot) `ls` %s {x}.png",
    "cat/🐕👨‍👩‍👧.png",
    "cat/süß 犬 كلب.png",
    "cat/esc\x1b[31m.png",
    "cat/back\\slash.png",
    "cat/ space .png",
    f"cat/{'n' * 250}.png",
]


def _train(opt_ml: Paths) -> Split:
    return load_split(opt_ml.processing_output("data") / "train")


def _names(opt_ml: Paths) -> set[str]:
    folder = opt_ml.processing_output("data")
    return {sample.name for split in folder.iterdir() for sample in load_split(split).samples}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_strange_names_are_taken(
    packed: bool, two_classes: None, dataset: Path, add: Add, png: Any, prepared: Prepare, opt_ml: Paths
) -> None:
    members = [(name, png(200 + number)) for number, name in enumerate(STRANGE)]
    if packed:
        tar(dataset / "images-00000.tar", [*members, (f"cat/{'deep/' * 900}far.png", png(99))])
    else:
        for name, data in members:
            add(name, data)
    report = prepared()
    assert sum(sizes(report)) == 20 + len(STRANGE) + packed
    assert left_out(report) == {}
    assert {printable(name) for name in STRANGE} <= _names(opt_ml)


def test_no_name_breaks_a_line_of_the_log(
    two_classes: None, add: Add, prepared: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    add("cat/x\nwarning: \x1b[31mall is lost\r\u2028.png", b"")
    prepared()
    lines = capsys.readouterr().out.splitlines()
    assert "left out: cat/x\\nwarning: \\x1b[31mall is lost\\r\\u2028.png is empty" in lines
    assert len(lines) == 3


def test_names_that_are_not_utf8_stay_apart(
    two_classes: None, dataset: Path, png: Any, prepared: Prepare, opt_ml: Paths
) -> None:
    for number, byte in enumerate((b"\xe8", b"\xe9")):
        folder = dataset / os.fsdecode(b"h" + byte)
        folder.mkdir()
        (folder / os.fsdecode(byte + b".png")).write_bytes(png(50 + number))
    report = prepared()
    assert report["classes"] == ["cat", "dog", "h\\xe8", "h\\xe9"]
    assert {"h\\xe8/\\xe8.png", "h\\xe9/\\xe9.png"} <= _names(opt_ml)
    assert report["warnings"][-1] == (
        "class folders have names that are not UTF-8 or not one line; rename them: h\\xe8, h\\xe9"
    )


def test_names_of_a_tar_that_are_not_utf8_stay_apart(
    two_classes: None, dataset: Path, png: Any, prepared: Prepare
) -> None:
    members = [("h\xe8/1.png", png(50)), ("h\xe9/1.png", png(51))]
    tar(dataset / "a.tar", members, format=1, encoding="latin-1")
    assert prepared()["classes"] == ["cat", "dog", "h\\xe8", "h\\xe9"]


@pytest.mark.parametrize("twin", ["cat/1.png", "./cat/1.png", "cat//1.png", "././cat/./1.png"])
def test_one_name_for_two_pictures_is_refused(
    twin: str, two_classes: None, dataset: Path, png: Any, refused: Refused
) -> None:
    tar(dataset / "images-00000.tar", [(twin, png(99))])
    assert "cat/1.png is there twice with different bytes (1.png and images-00000.tar)" in refused()


def test_one_name_in_two_shards_is_refused_with_the_shards(dataset: Path, png: Any, refused: Refused) -> None:
    for number in range(2):
        members = [(f"{'./' * number}{label}/1.png", png(10 * number + len(label))) for label in ("cat", "horse")]
        tar(dataset / f"images-0000{number}.tar", members)
    assert "(images-00000.tar and images-00001.tar); give each image a name of its own" in refused()


def test_the_same_picture_twice_under_its_name_is_a_copy(
    two_classes: None, dataset: Path, png: Any, prepared: Prepare
) -> None:
    tar(dataset / "images-00000.tar", [("./cat/1.png", png(1))])
    report = prepared()
    assert (sum(sizes(report)), report["copies"]["count"]) == (20, 1)


def test_a_broken_picture_makes_no_name_twice(two_classes: None, dataset: Path, png: Any, prepared: Prepare) -> None:
    tar(dataset / "images-00000.tar", [("cat/1.png", b"broken")])
    assert sum(sizes(prepared())) == 20


def test_files_that_differ_only_in_capital_letters_are_two(
    two_classes: None, add: Add, png: Any, prepared: Prepare, opt_ml: Paths
) -> None:
    add("cat/A.png", png(50))
    add("cat/a.PNG", png(51))
    report = prepared()
    assert (sum(sizes(report)), report["warnings"]) == (22, [])
    assert {"cat/A.png", "cat/a.PNG"} <= _names(opt_ml)


def test_classes_that_differ_only_in_capital_letters_are_two_and_asked_about(
    two_classes: None, add: Add, png: Any, prepared: Prepare
) -> None:
    for number in range(3):
        add(f"Dog/{number}.png", png(50 + number))
    report = prepared()
    assert report["classes"] == ["Dog", "cat", "dog"]
    assert report["warnings"] == ["classes differ only in capital letters: Dog, dog"]


@pytest.mark.parametrize("twin", [unicodedata.normalize("NFD", "chien café"), "chien  café", " chien café"])
def test_classes_that_look_the_same_are_refused(
    twin: str, two_classes: None, add: Add, png: Any, refused: Refused
) -> None:
    add("chien café/1.png", png(50))
    add(f"{twin}/2.png", png(51))
    message = refused()
    assert "Class folders look the same, but are not (" in message
    assert twin.strip().split()[0] in message


def test_a_report_with_strange_names_is_json_in_utf8(
    two_classes: None, add: Add, png: Any, prepared: Prepare, opt_ml: Paths
) -> None:
    for name in STRANGE:
        add(name, b"")
    prepared()
    text = (opt_ml.processing_output("report") / "prepare.json").read_text("utf-8")
    listed = {file["name"] for file in json.loads(text)["left_out"]["files"]}
    assert listed == {printable(name) for name in STRANGE}


@pytest.mark.parametrize("name", ["cat/1.png", "süß", "👨‍👩‍👧", "a\\b", "no\u00a0break", "\u202ebidi"])
def test_what_can_be_shown_is_shown_as_it_is(name: str) -> None:
    assert printable(name) == name
