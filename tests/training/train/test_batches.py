"""Batches: what a step sees follows from seed, epoch, step and rank, in order, whoever decodes it."""

import threading
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.train.jobs import CLASSES, encoded, scene, tinted, write_split  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.train.data import Images, batches, steps_per_epoch, train_plan, valid_plan  # noqa: E402
from training.transform import Preprocessing, open_rgb, to_array  # noqa: E402

HOW, CPU = Preprocessing.for_image_size(32), torch.device("cpu")


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 5), st.integers(0, 3))
def test_in_an_epoch_no_image_is_seen_twice_and_each_rank_sees_as_many(
    images: int, batch: int, world: int, epoch: int
) -> None:
    if min(images, batch) < world:
        with pytest.raises(TrainingError, match=f"{world} workers need"):
            steps_per_epoch(images, batch, world)
        return
    plans = [train_plan(images, batch, rank=rank, world_size=world, seed=1, epoch=epoch) for rank in range(world)]
    size = min(images, batch) // world
    for plan in plans:
        assert [len(items) for items in plan] == [size] * steps_per_epoch(images, batch, world)
    seen = [index for plan in plans for items in plan for index, _ in items]
    assert len(seen) == len(set(seen)) > images - size * world


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 5))
def test_validation_sees_each_image_once_and_rank_by_rank_in_turns(images: int, batch: int, world: int) -> None:
    plans = [valid_plan(images, batch, rank=rank, world_size=world) for rank in range(world)]
    assert sorted(index for plan in plans for items in plan for index, _ in items) == list(range(images))
    for rank, plan in enumerate(plans):
        assert [index for index, _ in chain(*plan)] == list(range(rank, images, world))


def test_the_ranks_of_a_step_see_together_what_one_worker_sees() -> None:
    alone = train_plan(20, 8, seed=3, epoch=1)
    pair = [train_plan(20, 8, rank=rank, world_size=2, seed=3, epoch=1) for rank in (0, 1)]
    for step, items in enumerate(alone):
        assert sorted(pair[0][step] + pair[1][step]) == sorted(items)


def test_order_and_augmentation_change_with_epoch_and_seed() -> None:
    plans = [train_plan(8, 4, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert plans[0] == plans[3]
    for other in plans[1:3]:
        assert [index for index, _ in chain(*plans[0])] != [index for index, _ in chain(*other)]
        assert not {seed for _, seed in chain(*plans[0])} & {seed for _, seed in chain(*other)}


def test_batches_hold_the_planned_images_in_order(tmp_path: Path) -> None:
    split = write_split(tmp_path / "s", "train", [(n % 2, tinted(n % 2, n)) for n in range(11)], CLASSES)
    data, plan = Images(split, HOW, augment=True), train_plan(11, 3, seed=2, epoch=0)
    found = list(batches(data, plan, CPU))
    assert len(found) == len(plan) == 3
    for (pictures, labels), items in zip(found, plan, strict=True):
        assert pictures.is_contiguous(memory_format=torch.channels_last)
        assert labels.tolist() == [split.samples[index].label for index, _ in items]
        for picture, item in zip(pictures, items, strict=True):
            assert torch.equal(picture, data[item][0])
    resumed = list(batches(data, plan[1:], CPU))
    assert all(torch.equal(one[0], other[0]) for one, other in zip(found[1:], resumed, strict=True))


def test_nothing_planned_gives_no_batch(tmp_path: Path) -> None:
    split = write_split(tmp_path / "s", "train", [(0, tinted(0, 0))], CLASSES)
    assert list(batches(Images(split, HOW, augment=True), [], CPU)) == []


def test_images_of_evaluation_are_decoded_whole(tmp_path: Path) -> None:
    data = encoded(scene(0, 1100, 1030))
    split = write_split(tmp_path / "s", "valid", [(1, data)], CLASSES)
    seen, label = Images(split, HOW, augment=False)[0, 0]
    assert torch.equal(seen, torch.from_numpy(to_array(open_rgb(data), HOW)))
    assert label == 1


@pytest.mark.parametrize("augment", [True, False])
def test_an_image_that_cannot_be_decoded_is_named(augment: bool, tmp_path: Path) -> None:
    pictures = [(0, tinted(0, 0)), (1, encoded(scene(0, 99, 99))[:600]), (0, tinted(0, 2)), (0, tinted(0, 3))]
    split = write_split(tmp_path / "s", "train", pictures, CLASSES)
    with pytest.raises(TrainingError, match=r"dog/1\.img in shard-00000\.tar cannot be decoded"):
        list(batches(Images(split, HOW, augment=augment), [[(0, 0)], [(1, 0)], [(2, 0)], [(3, 0)]], CPU))


def test_no_thread_is_left_when_training_stops_in_the_middle(tmp_path: Path) -> None:
    split = write_split(tmp_path / "s", "train", [(0, tinted(0, n)) for n in range(40)], CLASSES)
    pending = batches(Images(split, HOW, augment=True), train_plan(40, 2, seed=0, epoch=0), CPU)
    next(pending)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    pending.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_fewer_images_than_a_batch_make_one_step() -> None:
    assert [len(step) for step in train_plan(5, 64, seed=0, epoch=0, world_size=2)] == [2]


def test_augmentation_depends_on_its_seed_alone_and_leaves_the_networks_random_numbers(tmp_path: Path) -> None:
    split = write_split(tmp_path / "s", "train", [(0, tinted(0, 0))], CLASSES)
    images = Images(split, HOW, augment=True)
    first = images[0, 1][0]
    assert torch.equal(images[0, 1][0], first)
    assert not torch.equal(images[0, 2][0], first)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    images[0, 3]
    assert torch.equal(torch.rand(1), expected)
