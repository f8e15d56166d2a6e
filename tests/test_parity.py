"""Training, the server and torchvision see the same numbers of a photograph; a served model answers as in torch."""

import functools
import inspect
import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin

from inference import artifact, images
from inference import images as serving
from tests.inference.tiny import Server, listening, start
from training import calibration, known
from training import transform as training

# OpenVINO converts by way of torch.jit, which torch calls deprecated.
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")]

TEMPERATURE = 0.4  # makes the server's answers surer than the bare network's
SIZES = [(640, 427), (427, 640), (300, 300), (257, 256), (1001, 333), (91, 57), (224, 224), (40, 31), (3, 500), (1, 1)]
NAMES = [f"{width}x{height}" for width, height in SIZES]
NAMES += ["mode L", "mode 1", "mode P", "alpha", "alpha in WebP", "CMYK", "16 bits", "animation"]
NAMES += ["two pictures in a JPEG", "two pages"]
NAMES += [f"turned {orientation}" for orientation in (*range(1, 9), "wrongly", "by a text")]
HOW = [
    training.Preprocessing(256, 224),
    training.Preprocessing(32, 32),
    training.Preprocessing(73, 64, "bicubic", (0.5, 0.4, 0.3), (0.3, 0.2, 0.1)),
    training.Preprocessing(65, 65, "nearest"),
]


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


@functools.cache
def photographs() -> dict[str, bytes]:
    """Two real photographs in many sizes, kinds and modes, by name."""
    from sklearn.datasets import load_sample_images  # type: ignore[import-untyped]

    temple, flower = (Image.fromarray(pixels) for pixels in load_sample_images().images)
    found = {
        f"{width}x{height}": encoded((temple, flower)[number % 2].resize((width, height)), "JPEG", quality=90)
        for number, (width, height) in enumerate(SIZES)
    }
    small = flower.resize((320, 200))
    found |= special(small, temple.resize(small.size))
    assert list(found) == NAMES
    return found


def special(small: Image.Image, other: Image.Image) -> dict[str, bytes]:
    see_through = small.copy()
    see_through.putalpha(other.convert("L"))
    wide = Image.fromarray(np.asarray(small.convert("L"), np.uint16) * 257)
    found = {f"mode {mode}": encoded(small.convert(mode), "PNG") for mode in ("L", "1", "P")}
    found |= {"alpha": encoded(see_through, "PNG"), "alpha in WebP": encoded(see_through, "WEBP", lossless=True)}
    found |= {"CMYK": encoded(small.convert("CMYK"), "JPEG"), "16 bits": encoded(wide, "PNG")}
    kinds = {"animation": "GIF", "two pictures in a JPEG": "MPO", "two pages": "PNG"}
    found |= {name: encoded(small, kind, save_all=True, append_images=[other]) for name, kind in kinds.items()}
    for name, orientation in {**{str(number): number for number in range(1, 9)}, "wrongly": 9}.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        found[f"turned {name}"] = encoded(small, "JPEG", exif=exif)
    text = struct.pack("<HHI4s", 0x0112, 2, 2, b"6")  # tag, type ASCII, length, value
    found["turned by a text"] = encoded(
        small, "JPEG", exif=b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + text + bytes(4)
    )
    return found


def served_preprocessing(how: training.Preprocessing) -> artifact.Preprocessing:
    """Return what the server reads of what training writes."""
    return artifact._preprocessing(json.loads(json.dumps(how.to_dict())))


def in_training(photo: bytes, how: training.Preprocessing) -> NDArray[np.float32]:
    return training.to_array(training.open_rgb(photo), how)


def in_torchvision(photo: bytes, how: training.Preprocessing) -> NDArray[np.float32]:
    """Return what torchvision makes of the same settings."""
    from torchvision import transforms  # type: ignore[import-untyped]

    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(photo)))
    if upright.mode == "I;16":  # which neither Pillow nor torchvision brings to 8 bits; here 257 is 1
        upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
    steps = [
        transforms.Resize(how.resize, transforms.InterpolationMode(how.interpolation), antialias=True),
        transforms.CenterCrop(how.crop),
        transforms.ToTensor(),
        transforms.Normalize(how.mean, how.std),
    ]
    tensor: NDArray[np.float32] = transforms.Compose(steps)(upright.convert("RGB")).numpy()
    return tensor


@pytest.mark.parametrize("how", HOW, ids=lambda how: f"{how.resize}-{how.crop}-{how.interpolation}")
@pytest.mark.parametrize("name", NAMES)
def test_training_server_and_torchvision_see_the_same_numbers(name: str, how: training.Preprocessing) -> None:
    photo = photographs()[name]
    expected = in_torchvision(photo, how)
    served = served_preprocessing(how)
    pixels = serving.to_pixels(images.decode(photo, max_pixels=1_000_000), served)
    assert pixels.shape == (how.crop, how.crop, 3)
    assert pixels.dtype == np.uint8
    assert np.array_equal(in_training(photo, how), expected)
    meant = serving.normalized(as_pixels(expected, how), served)
    assert np.array_equal(expected, meant[0])
    if how.interpolation == "bilinear":  # of which only the part that is kept is computed
        differences = np.abs(pixels.astype(int) - as_pixels(expected, how))
        assert differences.max() <= 1
        assert np.count_nonzero(differences) <= differences.size / 20
    else:
        assert np.array_equal(as_pixels(expected, how), pixels)


def odd_exif(values: int) -> bytes:
    """Return EXIF data that turn a picture (6), with `values` fractions of which each divides by 0."""
    entries = struct.pack("<HHHIHH", 2, 274, 3, 1, 6, 0) + struct.pack("<HHII", 37380, 10, values, 38)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries + bytes(4) + bytes(8 * values)


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return png[:33] + chunk + png[33:]


def many_segments(jpeg: bytes) -> bytes:
    """Return a JPEG whose EXIF data give its resolution as 60,000 fractions, over as many segments as these need."""
    entries = struct.pack("<HHHIHH", 2, 274, 3, 1, 6, 0) + struct.pack("<HHII", 282, 5, 60_000, 38)
    exif = b"II*\0" + struct.pack("<I", 8) + entries + bytes(4) + struct.pack("<II", 1, 1) * 60_000
    parts = [b"Exif\0\0" + exif[start : start + 60_000] for start in range(0, len(exif), 60_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts)
    return jpeg[:2] + segments + jpeg[20:]  # in place of JFIF's segment, which would give the resolution


def with_odd_metadata() -> dict[str, bytes]:
    """Photographs with metadata that Pillow stumbles over; the last two are to be turned."""
    plain, bomb = Image.open(io.BytesIO(photographs()["300x300"])), zlib.compress(bytes(2**21))
    png = encoded(plain, "PNG")
    return {
        "a long text": with_chunk(png, b"zTXt", b"Comment\0\0" + bomb),
        "a long colour profile": with_chunk(png, b"iCCP", b"one\0\0" + bomb),
        "EXIF that is none": encoded(plain, "PNG", exif=b"Exif\0\0nothing"),
        "EXIF cut short": encoded(plain, "PNG", exif=odd_exif(3)[:20]),
        "a division by zero": encoded(plain, "PNG", exif=odd_exif(1)),
        "fractions in many segments": many_segments(encoded(plain, "JPEG", quality=100, subsampling=0)),
        "60,000 fractions": encoded(plain, "PNG", exif=odd_exif(60_000)),
    }


@pytest.mark.parametrize("name", ["a long text", "a long colour profile", "EXIF that is none", "EXIF cut short"])
def test_metadata_decides_nothing(name: str) -> None:
    data = with_odd_metadata()[name]
    expected = np.asarray(Image.open(io.BytesIO(photographs()["300x300"])))
    assert np.array_equal(np.asarray(training.open_rgb(data)), expected)
    assert np.array_equal(np.asarray(images.decode(data, max_pixels=1_000_000)), expected)


@pytest.mark.filterwarnings("ignore:Tag data larger than file:UserWarning")
def test_only_the_first_segment_of_exif_data_is_read() -> None:
    picture = training.open_image(with_odd_metadata()["fractions in many segments"])
    assert len(picture.info["exif"]) < 65_536
    assert training.to_rgb(picture).size == images.decode(many_segments(photographs()["300x300"]), 1_000_000).size


@pytest.mark.parametrize("name", ["a division by zero", "60,000 fractions"])
def test_of_odd_exif_data_the_orientation_alone_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_odd_metadata()[name]
    monkeypatch.setattr(TiffImagePlugin, "IFDRational", None)  # nothing makes fractions of these values
    expected = np.asarray(Image.open(io.BytesIO(photographs()["300x300"])).transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(np.asarray(training.open_rgb(data)), expected)
    assert np.array_equal(np.asarray(images.decode(data, max_pixels=1_000_000)), expected)


def test_training_and_the_server_read_metadata_alike() -> None:
    for name in ("orientation", "without_metadata"):
        assert inspect.getsource(getattr(training, name)) == inspect.getsource(getattr(serving, name))


def test_the_sizes_are_torchvisions_and_are_read_back_from_model_json() -> None:
    how = training.Preprocessing.for_image_size(224)
    assert (how.resize, how.crop) == (256, 224)
    assert training.Preprocessing.from_dict(json.loads(json.dumps(how.to_dict()))) == how


def as_pixels(tensor: NDArray[np.float32], how: training.Preprocessing) -> NDArray[np.uint8]:
    """The bytes [crop, crop, 3] from which a normalized [3, crop, crop] came."""
    values = tensor.transpose(1, 2, 0) * np.asarray(how.std) + np.asarray(how.mean)
    return np.asarray(np.rint(255 * values), np.uint8)


@pytest.fixture(scope="module")
def network() -> Any:
    """A small network with every kind of layer that a ResNet has; random but the same each time."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 7, 2, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    model(torch.randn(64, 3, 65, 65))  # gives the normalization statistics of its own
    return model.eval()


def features(network: Any, photo: bytes) -> NDArray[np.float32]:
    """What the network's last layer sees of a photograph, [1, 8]."""
    import torch

    with torch.no_grad():
        found: NDArray[np.float32] = network[:-1](torch.from_numpy(in_torchvision(photo, HOW[1]))[None]).numpy()
    return found


@pytest.fixture(scope="module")
def fitted(network: Any) -> known.Fitted:
    """A reference of half of the photographs."""
    rows = np.concatenate([features(network, photographs()[name]) for name in NAMES])
    labels = np.arange(len(rows)) % 5
    return known.fit(rows[::2], labels[::2], rows, labels, coverage=0.6)


@pytest.fixture(scope="module")
def server(network: Any, fitted: known.Fitted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves what training's export wrote."""
    import torch

    from training.train.export import export

    folder = tmp_path_factory.mktemp("opt_ml")
    record = {"format": 1, "classes": list("abcde"), "preprocessing": HOW[1].to_dict(), "temperature": TEMPERATURE}
    black = torch.zeros(2, 3, HOW[1].crop, HOW[1].crop)
    labels = torch.zeros(2, dtype=torch.int64)
    exports = export(network, black, labels, folder / "model", temperature=TEMPERATURE, known=fitted)
    (folder / "model" / "model.json").write_text(json.dumps({**record, "known": fitted.record, "exports": exports}))
    process = start(folder, PRECISION="float32")
    yield Server(process, listening(process))
    process.kill()
    process.communicate()


@pytest.mark.parametrize("name", NAMES)
def test_the_server_answers_as_the_network_does_in_torch(
    name: str, network: Any, fitted: known.Fitted, server: Server
) -> None:
    import torch

    photo = photographs()[name]
    with torch.no_grad():
        logits = network(torch.from_numpy(in_torchvision(photo, HOW[1]))[None])[0]
    answer = server.classify(photo)
    assert answer.status == 200, answer.body
    # The same arithmetic in another order, and here and there a neighbouring value of a pixel.
    expected = torch.softmax(logits.double() / TEMPERATURE, 0).tolist()
    assert answer.json["probabilities"] == pytest.approx(expected, abs=2e-4)
    in_training = calibration.softmax(logits[None].numpy(), TEMPERATURE)[0]
    assert answer.json["probabilities"] == pytest.approx(in_training.tolist(), abs=2e-4)
    score = fitted.reference.scores(features(network, photo) @ fitted.axes)[0]
    assert answer.json["known"]["score"] == pytest.approx(float(score), abs=1e-3)
    assert answer.json["known"]["threshold"] == fitted.reference.threshold
