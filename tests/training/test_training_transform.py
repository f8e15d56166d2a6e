"""The evaluation transform equals torchvision's, number for number."""

import io

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
from torchvision.transforms import v2  # type: ignore[import-untyped] # noqa: E402

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
