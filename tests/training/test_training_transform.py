"""The evaluation transform equals torchvision's, number for number; shares of the data are disjoint."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
from torchvision.transforms import v2  # type: ignore[import-untyped] # noqa: E402

from training.errors import TrainingError  # noqa: E402
from training.prepare.source import Found, Source  # noqa: E402
from training.prepare.verify import verify  # noqa: E402
from training.split import Sample, Split  # noqa: E402
from training.train.data import Images, Share, train_plan, valid_plan  # noqa: E402
from training.transform import Preprocessing, open_rgb, to_array  # noqa: E402


@pytest.mark.parametrize("size", [(500, 333), (333, 500), (224, 224), (37, 81), (1, 1), (300, 9), (9, 301), (257, 256)])
@pytest.mark.parametrize("side", [224, 32, 33])
def test_it_equals_torchvision_on_pillow_images(size: tuple[int, int], side: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    how = Preprocessing.for_image_size(side)
    theirs = v2.Compose(
        [
            v2.Resize(how.resize, interpolation=v2.InterpolationMode.BILINEAR, antialias=True),
            v2.CenterCrop(how.crop),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(how.mean, how.std),
        ]
    )(picture)
    np.testing.assert_allclose(to_array(picture, how), theirs.numpy(), rtol=0, atol=1e-6)


def test_a_photo_is_turned_upright_as_its_camera_says() -> None:
    picture = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    picture.save(stream, "JPEG", exif=exif)
    assert open_rgb(stream.getvalue()).size == (20, 40)


def test_sizes_travel_through_the_artifact() -> None:
    how = Preprocessing.for_image_size(224)
    assert (how.resize, how.crop) == (256, 224)
    assert Preprocessing.from_dict(how.to_dict()) == how


@pytest.mark.parametrize("world", [1, 2, 3])
def test_each_step_is_shared_out_whole_and_evenly(world: int) -> None:
    alone = train_plan(50, 12, Share(), seed=1, epoch=2)
    shares = [train_plan(50, 12, Share(rank, world), seed=1, epoch=2) for rank in range(world)]
    for step, together in enumerate(alone):
        assert sorted(together) == sorted(item for share in shares for item in share[step])
        assert {len(share[step]) for share in shares} == {12 // world}


def test_orders_differ_by_epoch_and_seed_and_repeat() -> None:
    first = train_plan(50, 50, Share(), seed=1, epoch=0)
    assert train_plan(50, 50, Share(), seed=1, epoch=0) == first
    assert train_plan(50, 50, Share(), seed=1, epoch=1) != first
    assert train_plan(50, 50, Share(), seed=2, epoch=0) != first


def test_fewer_images_than_a_batch_make_one_step() -> None:
    assert [len(step) for step in train_plan(5, 64, Share(0, 2), seed=0, epoch=0)] == [2]
    with pytest.raises(TrainingError, match="4 workers need batch_size and images of 4 at least"):
        train_plan(3, 64, Share(0, 4), seed=0, epoch=0)


@pytest.mark.parametrize("world", [1, 2, 5])
def test_validation_sees_every_image_once(world: int) -> None:
    plans = [valid_plan(13, 4, Share(rank, world)) for rank in range(world)]
    assert sorted(item for plan in plans for step in plan for item in step) == [(index, 0) for index in range(13)]


def test_augmentation_depends_on_its_seed_alone_and_leaves_the_networks_dice(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    size = (tmp_path / "a.png").stat().st_size
    assert len(verify([Found(Source(tmp_path / "a.png", 0, size, "a.png"), "", "a", "a.png")])[0]) == 1
    split = Split(tmp_path, "train", ("a",), (Sample("a.png", 0, size, 0, "a/a.png", ""),), "")
    images = Images(split, Preprocessing.for_image_size(32), augment=True)
    first = images[0, 1][0]
    assert torch.equal(images[0, 1][0], first)
    assert not torch.equal(images[0, 2][0], first)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    images[0, 3]
    assert torch.equal(torch.rand(1), expected)
