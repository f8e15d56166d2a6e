"""What a training image looks like: where the crop lies, that the seed alone decides it, and how JPEGs are decoded."""

import math
import random
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from torchvision.transforms import RandomResizedCrop  # type: ignore[import-untyped]  # noqa: E402

from tests.training.train.jobs import encoded, scene  # noqa: E402
from training.train.data import Augmentation, open_reduced  # noqa: E402
from training.transform import Preprocessing, open_rgb  # noqa: E402

HOW = Preprocessing.for_image_size(224)


SMALLER = Preprocessing.for_image_size(96)


@cache
def _slopes(width: int, height: int) -> Image.Image:
    """A picture whose red grows to the right and whose green grows downwards."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([255 * x / width, 255 * y / height, 0 * x], 2).astype(np.uint8))


def _shown(seed: int) -> tuple[float, float, float, float]:
    """Read a crop's middle and size in shares of the picture off its colours; the width is negative if mirrored."""
    seen = Augmentation.of(SMALLER)(_slopes(200, 150), seed).numpy()
    red, green = (seen[c] * SMALLER.std[c] + SMALLER.mean[c] for c in (0, 1))
    across, down = red[:, -1].mean() - red[:, 0].mean(), green[-1].mean() - green[0].mean()
    return red.mean(), green.mean(), across * 96 / 95, down * 96 / 95


def test_crops_are_drawn_as_torchvision_draws_them() -> None:
    ours = np.abs([_shown(seed) for seed in range(600)])
    torch.manual_seed(0)
    drawn = [RandomResizedCrop.get_params(_slopes(200, 150), [0.3, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
    theirs = np.array([((j + w / 2) / 200, (i + h / 2) / 150, w / 200, h / 150) for i, j, h, w in drawn])
    for mine, other in zip(ours.T, theirs.T, strict=True):
        assert abs(mine.mean() - other.mean()) < 4 * other.std() / math.sqrt(len(ours)) + 0.005
        assert mine.std() == pytest.approx(other.std(), rel=0.15)


def test_half_of_the_images_are_mirrored() -> None:
    assert 60 < sum(_shown(seed)[2] < 0 for seed in range(160)) < 100


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**63 - 1))
def test_a_crop_lies_in_the_picture_and_is_as_large_and_as_wide_as_allowed(width: int, height: int, seed: int) -> None:
    made = Augmentation.of(HOW)
    left, top, right, bottom = made._draw_box(width, height, random.Random(seed))
    assert 0 <= left < right <= width + 1e-9
    assert 0 <= top < bottom <= height + 1e-9
    ratio, share = (right - left) / (bottom - top), (right - left) * (bottom - top) / (width * height)
    assert 3 / 4 - 1e-6 <= ratio <= 4 / 3 + 1e-6
    assert share <= 1 + 1e-9
    if 3 / 4 <= width / height <= 4 / 3:
        assert share >= 0.3 - 1e-6


def test_a_picture_of_one_pixel_and_a_very_long_one_are_cropped() -> None:
    for size in ((1, 1), (4000, 1), (1, 4000)):
        assert Augmentation.of(HOW)(Image.new("RGB", size, (9, 9, 9)), 3).shape == (3, 224, 224)


def test_small_images_are_cropped_slightly() -> None:
    made = Augmentation.of(Preprocessing.for_image_size(32))
    assert (made.scale, made.ratio) == ((0.7, 1.0), (0.9, 1.1))


def test_the_seed_alone_decides_whatever_the_thread() -> None:
    made, picture = Augmentation.of(HOW), scene(0, 120, 90)
    alone = [made(picture, seed) for seed in range(24)]
    torch.manual_seed(5)
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda seed: made(picture, seed), range(24)))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert not any(torch.equal(one, other) for one, other in pairwise(alone))


def test_the_values_are_normalized_as_in_evaluation() -> None:
    white = Augmentation.of(HOW)(Image.new("RGB", (300, 300), (255, 255, 255)), 1)
    assert white.dtype == torch.float32
    for channel in range(3):
        assert (
            white[channel].min()
            == white[channel].max()
            == pytest.approx((1 - HOW.mean[channel]) / HOW.std[channel], rel=1e-6)
        )


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((4000, 3000), (1000, 750)),  # an eighth would leave 375
        ((2048, 1024), (1024, 512)),
        ((2046, 1023), (2046, 1023)),
        ((500, 375), (500, 375)),
    ],
)
def test_a_photograph_is_decoded_at_a_share_that_leaves_512_pixels(
    size: tuple[int, int], decoded: tuple[int, int]
) -> None:
    assert open_reduced(encoded(Image.new("RGB", size)), 512).size == decoded


def test_a_large_input_asks_for_more_pixels_than_its_smallest_crop_has() -> None:
    made = Augmentation.of(Preprocessing.for_image_size(384))
    narrowest = made.min_side * math.sqrt(0.3 * 3 / 4)
    assert 384 <= narrowest < 386
    assert Augmentation.of(HOW).min_side == 512


@pytest.mark.parametrize("size", [(1365, 1024), (1024, 1200)])
def test_a_crop_of_a_reduced_picture_differs_less_than_one_of_a_picture_saved_at_quality_75(
    size: tuple[int, int],
) -> None:
    data, made = encoded(scene(1, *size), quality=92), Augmentation.of(HOW)
    whole, reduced = open_rgb(data), open_reduced(data, made.min_side)
    assert reduced.size == (size[0] // 2 + size[0] % 2, size[1] // 2)
    again = open_rgb(encoded(whole, quality=75))
    for seed in range(3):
        wanted, found, usual = (_levels(made, picture, seed) for picture in (whole, reduced, again))
        assert np.abs(found - wanted).mean() < np.abs(usual - wanted).mean() < 1


def _levels(made: Augmentation, picture: Image.Image, seed: int) -> NDArray[np.float64]:
    levels: NDArray[np.float64] = 255 * np.reshape(HOW.std, (3, 1, 1)) * made(picture, seed).numpy()
    return levels


def test_what_need_not_be_reduced_is_decoded_bit_for_bit() -> None:
    for data in (encoded(scene(2, 600, 520)), encoded(scene(2, 1100, 1030), "PNG")):
        assert open_reduced(data, 512).tobytes() == open_rgb(data).tobytes()


def test_reduced_pictures_are_upright_and_in_rgb() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held on its side
    data = encoded(scene(3, 1200, 1024), exif=exif)
    assert open_reduced(data, 512).size == (512, 600)
    small = np.asarray(open_reduced(data, 512).resize((30, 50)), float)
    assert np.abs(small - np.asarray(open_rgb(data).resize((30, 50)), float)).mean() < 2
    for mode in ("L", "CMYK"):
        other = open_reduced(encoded(scene(3, 1200, 1024).convert(mode)), 512)
        assert (other.mode, other.size) == ("RGB", (600, 512))


def test_pictures_with_a_second_one_in_the_file_show_the_first_reduced() -> None:
    data = encoded(
        Image.new("RGB", (2048, 1200), (200, 0, 0)), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))]
    )
    seen = open_reduced(data, 512)
    assert seen.size == (1024, 600)
    assert seen.getpixel((5, 5)) == pytest.approx((200, 0, 0), abs=3)
