"""Chunks of features on disk."""

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch")

from training.errors import TrainingError  # noqa: E402
from training.train.checkpoint import FeatureStore  # noqa: E402

KEY = {"backbone": "b", "view": 1}
DIGESTS = [bytes([number]) * 32 for number in range(6)]
ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


def _store(folder: Path, rank: int = 0, width: int = 2) -> FeatureStore:
    return FeatureStore(folder, KEY, width, rank)


def _load(folder: Path, width: int = 2) -> tuple[set[bytes], list[list[float]]]:
    rows = np.full((6, width), -1, np.float32)
    found = _store(folder, width=width).load({digest: [place] for place, digest in enumerate(DIGESTS)}, rows)
    return found, rows.tolist()


def test_chunks_of_several_ranks_are_read_together(tmp_path: Path) -> None:
    _store(tmp_path).save(DIGESTS[:2], ROWS[:2])
    _store(tmp_path).save(DIGESTS[2:3], ROWS[2:3])
    _store(tmp_path, rank=1).save(DIGESTS[3:5], ROWS[3:5])
    found, rows = _load(tmp_path)
    assert found == set(DIGESTS[:5])
    assert rows == [*ROWS[:5].tolist(), [-1, -1]]


def test_an_image_fills_all_its_places(tmp_path: Path) -> None:
    _store(tmp_path).save(DIGESTS[:1], ROWS[:1])
    rows = np.full((3, 2), -1, np.float32)
    assert _store(tmp_path).load({DIGESTS[0]: [0, 2]}, rows) == {DIGESTS[0]}
    assert rows.tolist() == [[0, 1], [-1, -1], [0, 1]]


@pytest.mark.parametrize("key", [{"backbone": "c", "view": 1}, {"backbone": "b"}, {"backbone": "b", "view": "1"}])
def test_another_key_is_another_folder(key: dict[str, object], tmp_path: Path) -> None:
    _store(tmp_path).save(DIGESTS, ROWS)
    rows = np.zeros((1, 2), np.float32)
    assert FeatureStore(tmp_path, key, 2, 0).load({DIGESTS[0]: [0]}, rows) == set()


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _store(tmp_path).save(DIGESTS[:1], ROWS[:1])
    file = next(tmp_path.glob("*/*.features"))
    whole = file.read_bytes()
    wrong = [whole[:place] for place in range(len(whole))]
    wrong += [whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :] for place in range(len(whole))]
    for content in wrong:
        file.write_bytes(content)
        assert _load(tmp_path)[0] == set()
        assert "damaged" in capsys.readouterr().out
        assert not file.exists()


def test_what_a_kill_left_half_written_is_never_read_and_written_over(tmp_path: Path) -> None:
    _store(tmp_path).save(DIGESTS[:1], ROWS[:1])
    folder = next(tmp_path.iterdir())
    (folder / "rank-0.partial").write_bytes(next(folder.glob("*.features")).read_bytes()[:50])
    assert _load(tmp_path)[0] == set(DIGESTS[:1])
    _store(tmp_path).save(DIGESTS[1:2], ROWS[1:2])
    assert sorted(file.suffix for file in folder.iterdir()) == [".features", ".features"]


def test_the_same_chunk_twice_is_one_file(tmp_path: Path) -> None:
    for _ in range(2):
        _store(tmp_path).save(DIGESTS, ROWS)
    assert len(list(tmp_path.glob("*/*"))) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("a file in its place")
    with pytest.raises(TrainingError, match=r"Features in .*features.* cannot be written: .*; free space or grant"):
        _store(tmp_path / "features").save(DIGESTS, ROWS)


def test_a_refusal_is_remembered_for_its_key_only(tmp_path: Path) -> None:
    assert not _store(tmp_path).rejected
    _store(tmp_path).reject()
    assert _store(tmp_path).rejected
    assert not FeatureStore(tmp_path, {"backbone": "c"}, 2, 0).rejected
