"""What model.json may say."""

import copy
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference import artifact
from inference.errors import StartError
from tests.inference.tiny import FACTS, write_model


def load_with(folder: Path, **changes: Any) -> artifact.Artifact:
    """Keys of preprocessing are changed there, the others at the top."""
    facts = copy.deepcopy(FACTS)
    for name, value in changes.items():
        (facts["preprocessing"] if name in facts["preprocessing"] else facts)[name] = value
    write_model(folder)
    (folder / "model.json").write_text(json.dumps(facts))
    return artifact.load(folder)


def test_an_artifact_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = load_with(tmp_path, interpolation="bicubic", mean=[0.485, 0.456, 0], something="new")
    assert found.classes == ("red", "green", "blue")
    assert found.files == {"float32": tmp_path / "model.xml"}
    assert (found.preprocessing.resize, found.preprocessing.crop) == (40, 32)
    assert found.preprocessing.interpolation is Image.Resampling.BICUBIC
    assert found.preprocessing.mean == (0.485, 0.456, 0.0)
    assert found.preprocessing.std == (0.2, 0.2, 0.2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "model.json has format 2; this server reads format 1."),
        ({"format": None}, "model.json has format None; this server reads format 1."),
        ({"classes": []}, "classes must be a list of distinct, non-empty names"),
        ({"classes": ["a", "a"]}, "classes must be a list of distinct, non-empty names"),
        ({"classes": ["a", ""]}, "classes must be a list of distinct, non-empty names"),
        ({"classes": [["a"]]}, "classes must be a list of distinct, non-empty names"),
        ({"classes": "abc"}, "classes must be a list of distinct, non-empty names"),
        ({"preprocessing": None}, "preprocessing.resize must be a whole number from 1 to 4096, not None"),
        ({"crop": 41}, "preprocessing.crop 41 must not be larger than resize 40"),
        ({"crop": 0}, "preprocessing.crop must be a whole number from 1 to 4096, not 0"),
        ({"resize": True}, "preprocessing.resize must be a whole number from 1 to 4096, not True"),
        ({"resize": 10**9}, "preprocessing.resize must be a whole number from 1 to 4096, not 1000000000"),
        ({"interpolation": "best"}, "preprocessing.interpolation must be one of nearest, "),
        ({"mean": [0.5, 0.5]}, "preprocessing.mean must be three finite numbers, not [0.5, 0.5]"),
        ({"mean": [0.5, 0.5, "a", 0.5]}, "preprocessing.mean must be three finite numbers, not"),
        ({"mean": [0.5, 0.5, float("nan")]}, "preprocessing.mean must be three finite numbers, not"),
        ({"std": [0.5, 0.5, 0]}, "preprocessing.std must be three finite numbers above 0, not [0.5, 0.5, 0]"),
    ],
)
def test_an_impossible_value_is_named(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StartError, match=re.escape(sentence)):
        load_with(tmp_path, **changes)


def test_without_temperature_and_abstention_the_network_speaks_for_itself(tmp_path: Path) -> None:
    found = load_with(tmp_path)
    assert (found.temperature, found.threshold) == (1.0, None)


def test_temperature_and_threshold_are_read(tmp_path: Path) -> None:
    abstain = {"threshold": 0.41, "coverage": 0.95, "precision": 0.97}
    found = load_with(tmp_path, temperature=2, abstain=abstain)
    assert (found.temperature, found.threshold) == (2.0, 0.41)
    assert load_with(tmp_path, abstain=None).threshold is None
    assert [load_with(tmp_path, abstain={"threshold": edge}).threshold for edge in (0, 1)] == [0.0, 1.0]


@pytest.mark.parametrize("value", [0, -1.3, True, "1", None, [1.0], float("nan"), float("inf"), 10**400])
def test_an_impossible_temperature_is_named(tmp_path: Path, value: Any) -> None:
    with pytest.raises(StartError, match=r"^model\.json: temperature must be a finite number above 0, not "):
        load_with(tmp_path, temperature=value)


@pytest.mark.parametrize(
    "value",
    [0.4, [], "no", {}, *({"threshold": bad} for bad in (None, True, "0.4", -0.1, 1.01, float("nan"), 10**400))],
)
def test_an_impossible_abstention_is_named(tmp_path: Path, value: Any) -> None:
    with pytest.raises(StartError, match=r"^model\.json: abstain must be null or hold a threshold from 0 to 1, not "):
        load_with(tmp_path, abstain=value)


KNOWN = {"file": "known.npy", "neighbours": 2, "threshold": 0.6}


def test_the_reference_is_read_unless_it_has_no_threshold(tmp_path: Path) -> None:
    np.save(tmp_path / "known.npy", np.eye(3, dtype=np.float16))
    found = load_with(tmp_path, known=KNOWN).known
    assert found is not None
    assert found.rows.dtype == np.float32
    assert found.rows.tolist() == np.eye(3).tolist()
    assert (found.neighbours, found.threshold) == (2, 0.6)
    assert load_with(tmp_path, known={**KNOWN, "threshold": None}).known is None
    assert load_with(tmp_path, known=None).known is None


@pytest.mark.parametrize(
    "value",
    [
        0.4,
        [],
        {},
        *({**KNOWN, "threshold": bad} for bad in (True, "0.4", -1.1, 1.01, float("nan"))),
        *({**KNOWN, "neighbours": bad} for bad in (True, 1.5, None)),
        *({**KNOWN, "file": bad} for bad in (None, "", "../known.npy")),
    ],
)
def test_an_impossible_record_of_the_reference_is_named(tmp_path: Path, value: Any) -> None:
    np.save(tmp_path / "known.npy", np.eye(3, dtype=np.float16))
    with pytest.raises(StartError, match=r"^model\.json: known must be null or name a file, a number of neighbours "):
        load_with(tmp_path, known=value)


def _saved(rows: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, rows, allow_pickle=True)
    return file.getvalue()


HUGE = _saved(np.zeros((2, 3), np.float16)).replace(b"(2, 3), }        ", b"(999999, 99999), }")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ""),
        (b"nothing of the kind", ""),
        (HUGE, ""),
        (_saved(np.array([None, "a"])), ""),  # would be unpickled
        (_saved(np.zeros((4, 3), np.int8)), "it must hold 2 rows or more of finite numbers in float16"),
        (_saved(np.zeros(9, np.float16)), "it must hold 2 rows or more"),
        (_saved(np.zeros((1, 3), np.float16)), "it must hold 2 rows or more"),
        (_saved(np.zeros((4, 0), np.float16)), "it must hold 2 rows or more"),
        (_saved(np.full((4, 3), np.nan, np.float16)), "it must hold 2 rows or more"),
        (b" " * (1 + (32 << 20)), "it is too large"),
    ],
    ids=["empty", "text", "huge", "objects", "integers", "one axis", "one row", "no dimension", "NaN", "large"],
)
def test_a_broken_reference_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "known.npy").write_bytes(content)
    with pytest.raises(StartError, match=rf"known\.npy cannot be used as the reference of known pictures: .*{reason}"):
        load_with(tmp_path, known=KNOWN)


def test_a_missing_reference_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"known\.npy is missing"):
        load_with(tmp_path, known=KNOWN)


def test_the_exports_that_training_accepted_are_offered(tmp_path: Path) -> None:
    accepted = {"file": "model.xml", "agreement": 1.0, "largest_change": 1e-5, "accepted": True}
    refused = {"accepted": False, "reason": "too far from float32"}
    exports = {"float32": accepted, "int8": refused, "later": {"file": "model.bin", "accepted": True}}
    found = load_with(tmp_path, exports=exports)
    assert found.files == {"float32": tmp_path / "model.xml", "later": tmp_path / "model.bin"}


@pytest.mark.parametrize("name", ["model-int8.xml", "model-int8.bin"])
def test_a_missing_file_of_an_accepted_export_is_named(tmp_path: Path, name: str) -> None:
    for other in {"model-int8.xml", "model-int8.bin"} - {name}:
        (tmp_path / other).write_text("")
    with pytest.raises(StartError, match=f"{name} is missing"):
        load_with(tmp_path, exports={"int8": {"file": "model-int8.xml", "accepted": True}})


@pytest.mark.parametrize(
    "exports",
    [
        None,
        [],
        {},
        {"float32": None},
        {"float32": {"accepted": False}},
        {"float32": {"accepted": "yes", "file": "model.xml"}},
        {"float32": {"accepted": True}},
        {"float32": {"accepted": True, "file": "../model/model.xml"}},
    ],
)
def test_exports_that_offer_nothing_are_explained(tmp_path: Path, exports: Any) -> None:
    with pytest.raises(StartError, match=r"^model\.json: exports must hold one accepted export or more"):
        load_with(tmp_path, exports=exports)


@pytest.mark.parametrize("text", [b"", b'{"format": 1', b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_is_named(tmp_path: Path, text: bytes) -> None:
    write_model(tmp_path)
    (tmp_path / "model.json").write_bytes(text)
    with pytest.raises(StartError, match=r"model\.json cannot be read as JSON: "):
        artifact.load(tmp_path)


def test_json_that_is_no_object_has_no_format(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "model.json").write_text("[]")
    with pytest.raises(StartError, match="format None"):
        artifact.load(tmp_path)
