"""`kennel verify` on artifacts that are whole or changed."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kennel.errors import KennelError
from kennel.verify.command import Finding, check_artifact
from tests.cli.verify.artifacts import model, no_client, pack, sha, wrong_ones


@pytest.fixture
def check(tmp_path: Path) -> Callable[[bytes], list[Finding]]:
    def run(packed: bytes) -> list[Finding]:
        file = tmp_path / "model.tar.gz"
        file.write_bytes(packed)
        return check_artifact(str(file), client=no_client)

    return run


def test_a_whole_artifact_has_nothing_wrong(check: Callable[[bytes], list[Finding]]) -> None:
    findings = check(pack(model()))
    assert wrong_ones(findings) == {}
    looked_at = {one.what: one.detail for one in findings}
    assert looked_at["model.bin"] == f"sha256 {sha(bytes([0, 1]))}"
    assert looked_at["weights.pt"] == f"sha256 {sha(b'w' * 3_000_000)}"
    assert looked_at["passport.json"] == f"sha256 {sha(model()['passport.json'])}"
    assert looked_at["model.json: data.fingerprint"] == "ab12"
    assert looked_at["code"] == "c0de"


def test_an_archive_with_its_folder_named_is_the_same(check: Callable[[bytes], list[Finding]], tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for name, data in model().items():
        (tmp_path / "m" / name).write_bytes(data)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "m", ".")
    assert wrong_ones(check((tmp_path / "x.tar.gz").read_bytes())) == {}


@pytest.mark.parametrize("name", ["model.json", "model.xml", "model.bin", "weights.pt"])
def test_a_changed_file_is_named(check: Callable[[bytes], list[Finding]], name: str) -> None:
    files = model()
    wrong = wrong_ones(check(pack({**files, name: files[name] + b" "})))
    assert set(wrong) == {name}
    assert wrong[name].startswith("changed: its sha256 is")


def test_a_missing_and_an_added_file_are_named(check: Callable[[bytes], list[Finding]]) -> None:
    files = model()
    del files["model.bin"]
    wrong = wrong_ones(check(pack({**files, "inference.py": b"import os"})))
    assert wrong == {
        "model.bin": "missing from the archive",
        "inference.py": "in the archive, but not in the passport",
    }


def test_a_file_that_is_served_must_be_in_the_passport(check: Callable[[bytes], list[Finding]]) -> None:
    assert wrong_ones(check(pack(model(files={})))).keys() == {"model.json", "model.xml", "model.bin", "weights.pt"}


def test_a_file_that_is_served_must_be_there_though_the_passport_names_none(
    check: Callable[[bytes], list[Finding]],
) -> None:
    files = model(files={})
    del files["model.bin"]
    assert wrong_ones(check(pack(files)))["model.bin"] == "missing from the archive"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"hyperparameters": {"model": "resnet50"}}, "model.json: hyperparameters"),
        ({"metrics": {"valid_accuracy": 0.99}}, "model.json: metrics"),
        ({"data": {"fingerprint": "ffff"}}, "model.json: data.fingerprint"),
        ({"code": None}, "code"),
    ],
)
def test_a_passport_that_says_other_than_the_model_is_named(
    check: Callable[[bytes], list[Finding]], changes: dict[str, Any], what: str
) -> None:
    assert wrong_ones(check(pack(model(**changes)))).keys() == {what}


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"[" * 200_000, b'"x"'])
def test_an_artifact_without_a_readable_passport_is_not_verified(
    check: Callable[[bytes], list[Finding]], content: bytes | None
) -> None:
    files = model()
    del files["passport.json"]
    wrong = wrong_ones(check(pack(files if content is None else {**files, "passport.json": content})))
    assert wrong.keys() == {"passport.json"}


def test_a_passport_of_a_later_format_is_not_guessed_at(check: Callable[[bytes], list[Finding]]) -> None:
    assert wrong_ones(check(pack(model(format=2)))) == {"passport.json": "has format 2, this command reads 1"}


def test_what_a_stranger_wrote_does_not_reach_the_terminal_raw(check: Callable[[bytes], list[Finding]]) -> None:
    wrong = wrong_ones(check(pack(model(data={"fingerprint": "\x1b[2J" + "x" * 1000}))))
    assert "\x1b" not in wrong["model.json: data.fingerprint"]
    assert len(wrong["model.json: data.fingerprint"]) < 300


@pytest.mark.parametrize("place", ["nowhere.tar.gz", ".", "s3://bucket", "s3:///key", "arn:aws:s3:::bucket/key"])
def test_a_place_that_is_none_is_one_sentence(place: str) -> None:
    with pytest.raises(KennelError):
        check_artifact(place, client=no_client)
