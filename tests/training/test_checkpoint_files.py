"""The files of checkpoints: what is kept, what is believed, and what a disk that refuses costs."""

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


def test_a_damaged_checkpoint_does_not_count_among_the_two_that_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"step": step})
    (tmp_path / "step-000000003.ckpt").write_bytes(b"damaged")
    assert checkpoint.newest(tmp_path) == ({"step": 2}, ["step-000000003.ckpt"])
    checkpoint.save(tmp_path, 4, {"step": 4})
    assert _names(tmp_path) == ["step-000000002.ckpt", "step-000000004.ckpt"]
    (tmp_path / "step-000000004.ckpt").write_bytes(b"")
    assert checkpoint.newest(tmp_path)[0] == {"step": 2}


def test_a_folder_or_a_link_in_a_checkpoints_place_is_passed_over(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})
    (tmp_path / "step-000000002.ckpt" / "inside").mkdir(parents=True)
    (tmp_path / "step-000000003.ckpt").symlink_to("nowhere")
    names = ["step-000000003.ckpt", "step-000000002.ckpt"]
    assert checkpoint.newest(tmp_path) == ({"step": 1}, names)
    checkpoint.save(tmp_path, 2, {"step": 2})
    assert checkpoint.newest(tmp_path) == ({"step": 2}, [])


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("content", [pickle.dumps(_Bomb()), b"no archive", b""])
def test_whole_bytes_of_another_origin_are_not_run_and_not_believed(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "step-000000001.ckpt"
    file.write_bytes(b"KENNEL1\n" + hashlib.sha256(content).digest() + content)
    assert checkpoint.newest(tmp_path) == (None, [file.name])
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
    assert checkpoint.newest(tmp_path) == ({"step": 2}, [])


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
