"""Which images speak for an export."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.small import solid, write_split  # noqa: E402
from training.split import Split  # noqa: E402
from training.train.data import sample_by_class, sample_images  # noqa: E402
from training.transform import Preprocessing, open_rgb, to_array  # noqa: E402

HOW = Preprocessing.for_image_size(32)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Thirty images of a common class, then four of a rare one, then one of a third."""
    labels = [0] * 30 + [1] * 4 + [2]
    return write_split(tmp_path, [(label, solid(n, 7)) for n, label in enumerate(labels)], ("a", "b", "c"))


@pytest.mark.parametrize(("count", "per_class"), [(3, (1, 1, 1)), (7, (3, 3, 1)), (12, (7, 4, 1)), (99, (30, 4, 1))])
def test_the_classes_have_equal_parts_as_long_as_their_images_last(
    split: Split, count: int, per_class: tuple[int, ...]
) -> None:
    chosen = sample_by_class(split, count, seed=0)
    assert Counter(split.samples[index].label for index in chosen) == dict(enumerate(per_class))
    assert chosen == sorted(set(chosen))


def test_of_more_classes_than_images_some_are_chosen_by_chance(tmp_path: Path) -> None:
    split = write_split(tmp_path, [(n, solid(n, 1)) for n in range(50)], tuple(f"{n:02}" for n in range(50)))
    found = [sample_by_class(split, 5, seed) for seed in range(3)]
    assert [len(one) for one in found] == [5, 5, 5]
    assert found[0] != found[1] != found[2]


def test_the_same_seed_chooses_the_same_and_not_the_first(split: Split) -> None:
    assert sample_by_class(split, 7, seed=3) == sample_by_class(split, 7, seed=3)
    assert sample_by_class(split, 7, seed=3) != sample_by_class(split, 7, seed=4)
    assert sample_by_class(split, 7, seed=3)[:3] != [0, 1, 2]


def test_the_images_are_as_they_are_evaluated(split: Split) -> None:
    images, labels = sample_images(split, HOW, most=5, seed=0)
    assert labels.tolist() == [split.samples[index].label for index in sample_by_class(split, 5, seed=0)]
    expected = [to_array(open_rgb(split.read(index)), HOW) for index in sample_by_class(split, 5, seed=0)]
    assert images.dtype == torch.float32
    assert np.array_equal(images.numpy(), np.stack(expected))


def test_of_large_images_fewer_are_taken_but_never_too_few(tmp_path: Path) -> None:
    split = write_split(tmp_path, [(n % 2, solid(n, 1)) for n in range(40)])
    assert len(sample_images(split, Preprocessing(64, 64), most=36, seed=0)[1]) == 36
    assert len(sample_images(split, Preprocessing(240, 240), most=40, seed=0)[1]) == 34  # 40 x 224² / 240²
    assert len(sample_images(split, Preprocessing(448, 448), most=40, seed=0)[1]) == 32
