"""The files of checkpoints: what is kept, what is loaded, and what a full disk costs."""

import hashlib
import os
import pickle
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from training.errors import TrainingError  # noqa: E402
from training.train import checkpoint  # noqa: E402


def _names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_the_newest_two_checkpoints_stay(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, {"step": step})
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["step-000000002.ckpt", "step-000000010.ckpt"]
    assert checkpoint.load_newest(tmp_path) == {"step": 10}


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})
    newest = checkpoint.save(tmp_path, 2, {"step": 2})
    data = bytearray(newest.read_bytes())
    data[-20] ^= 1
    newest.write_bytes({"cut": bytes(data[:-30]), "flip": bytes(data), "empty": b""}[damage])
    assert checkpoint.load_newest(tmp_path) == {"step": 1}
    assert capsys.readouterr().out == "checkpoint step-000000002.ckpt is damaged and passed over\n"


def test_a_write_that_was_interrupted_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "step-000000009.partial").write_bytes(b"half")
    assert checkpoint.load_newest(tmp_path) is None
    assert checkpoint.load_newest(tmp_path / "nowhere") is None


def test_a_damaged_checkpoint_does_not_count_among_the_two_that_stay(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"step": step})
    (tmp_path / "step-000000003.ckpt").write_bytes(b"damaged")
    assert checkpoint.load_newest(tmp_path) == {"step": 2}
    checkpoint.save(tmp_path, 4, {"step": 4})
    assert _names(tmp_path) == ["step-000000002.ckpt", "step-000000004.ckpt"]
    (tmp_path / "step-000000004.ckpt").write_bytes(b"")
    assert checkpoint.load_newest(tmp_path) == {"step": 2}


def test_a_folder_or_a_link_in_a_checkpoints_place_is_passed_over(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})
    (tmp_path / "step-000000002.ckpt" / "inside").mkdir(parents=True)
    (tmp_path / "step-000000003.ckpt").symlink_to("nowhere")
    assert checkpoint.load_newest(tmp_path) == {"step": 1}
    assert _names(tmp_path) == ["step-000000001.ckpt"]
    checkpoint.save(tmp_path, 2, {"step": 2})
    assert checkpoint.load_newest(tmp_path) == {"step": 2}


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("content", [pickle.dumps(_Bomb()), b"no archive", b""])
def test_whole_bytes_of_another_origin_are_not_run_and_not_loaded(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "step-000000001.ckpt"
    file.write_bytes(b"KENNEL1\n" + hashlib.sha256(content).digest() + content)
    assert checkpoint.load_newest(tmp_path) is None
    assert not file.exists()
    assert not (tmp_path / "exploded").exists()


def test_what_a_killed_run_left_half_written_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "step-000000009.partial").write_bytes(b"half")
    checkpoint.save(tmp_path, 1, {"step": 1})
    assert _names(tmp_path) == ["step-000000001.ckpt"]


@pytest.fixture
def small_files() -> Iterator[None]:
    """The kernel refuses files beyond 10,000 bytes, as a full disk refuses them."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_refuses_a_checkpoint_keeps_those_before(tmp_path: Path, small_files: None) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"step": step})
    with pytest.raises(TrainingError, match=r"step-000000003\.ckpt cannot be written: File too large"):
        checkpoint.save(tmp_path, 3, {"step": torch.zeros(10_000)})
    assert _names(tmp_path) == ["step-000000001.ckpt", "step-000000002.ckpt"]
    assert checkpoint.load_newest(tmp_path) == {"step": 2}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("no folder")
    with pytest.raises(TrainingError, match=r"checkpoints/run/step-000000001\.ckpt cannot be written: Not a directory"):
        checkpoint.save(tmp_path / "checkpoints" / "run", 1, {})


def test_name_and_bytes_are_on_the_disk_before_older_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, list[str]]] = []
    sync = os.fsync

    def noting(descriptor: int) -> None:
        sync(descriptor)
        kind = Path(f"/proc/self/fd/{descriptor}").resolve()
        seen.append((kind == tmp_path.resolve(), _names(tmp_path)))

    for step in (1, 2):
        checkpoint.save(tmp_path, step, {})
    monkeypatch.setattr(os, "fsync", noting)
    checkpoint.save(tmp_path, 3, {})
    old = ["step-000000001.ckpt", "step-000000002.ckpt"]
    assert seen == [(False, [*old, "step-000000003.partial"]), (True, [*old, "step-000000003.ckpt"])]
