"""The frozen backbone's features: torch's own numbers, computed once, found again, and never mistaken for others."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.train.jobs import (  # noqa: E402
    CPU,
    WIDTH,
    StopAfter,
    channel,
    chunks,
    features_in_torch,
    head_context,
    tinted,
    tinted_images,
    write_head_job,
    write_split,
)
from training.errors import TrainingError  # noqa: E402
from training.train.context import TrainingContext  # noqa: E402
from training.train.data import Images  # noqa: E402
from training.train.head import backbone  # noqa: E402
from training.train.head.backbone import TorchBackbone  # noqa: E402
from training.train.head.features import extract_features, view_seed  # noqa: E402
from training.train.model import remove_head  # noqa: E402

Line = dict[str, str]


@pytest.fixture
def root(tmp_path: Path, tiny_network: None) -> Path:
    """20 training and 9 validation images of 32 pixels, and weights."""
    return write_head_job(tmp_path / "ml")


@pytest.fixture
def log_lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[Line]]:
    """The lines about features since the last look: first the training split's, then the validation split's."""

    def read() -> list[Line]:
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("features split=")]
        return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]

    return read


def _backbone(job: TrainingContext) -> tuple[Any, int]:
    network = job.build_network().eval()
    return network, remove_head(network)[1]


def _replace_train(root: Path, images: list[tuple[int, bytes]]) -> None:
    write_split(channel(root, "train"), "train", images)


def _extract(job: TrainingContext) -> Any:
    features = extract_features(job, *_backbone(job), StopAfter())
    assert features
    return features


def test_features_are_what_torch_makes_of_the_evaluated_picture(root: Path) -> None:
    job = head_context(root)
    features, network = _extract(job), _backbone(job)[0]
    for split, found in ((job.train_split, features.train), (job.valid_split, features.valid)):
        images = Images(split, job.preprocessing, augment=False)
        expected = features_in_torch(network, images, [(index, 0) for index in range(len(split))])
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_view_is_the_augmentation_with_a_seed_of_its_own_for_each_image(root: Path) -> None:
    job = head_context(root, views=2)
    features, network = _extract(job), _backbone(job)[0]
    assert features.train.shape == (60, WIDTH)
    images = Images(job.train_split, job.preprocessing, augment=True)
    for number, found in ((1, features.train[20:40]), (2, features.train[40:])):
        items = [(index, view_seed(job, job.train_split, number, index)) for index in range(20)]
        torch.testing.assert_close(found, features_in_torch(network, images, items), rtol=1e-3, atol=1e-4)
        assert len({seed for _, seed in items}) == 20
        assert not torch.allclose(found, features.train[:20], atol=0.05)
    assert not torch.allclose(features.train[20:40], features.train[40:], atol=0.05)


def test_a_second_run_computes_nothing_and_needs_no_backbone(
    root: Path, log_lines: Callable[[], list[Line]], capsys: pytest.CaptureFixture[str]
) -> None:
    first = _extract(head_context(root, views=1))
    assert [(line["views"], line["images"], line["computed"], line["reused"]) for line in log_lines()] == [
        ("1", "40", "40", "0"),
        ("0", "9", "9", "0"),
    ]
    again = _extract(head_context(root, views=1, learning_rate=0.1, epochs=9, batch_size=7, weight_decay=0.5))
    output = capsys.readouterr().out
    assert "backbone" not in output
    assert "split=train views=1 images=40 computed=0 reused=40" in output
    assert torch.equal(again.train, first.train)
    assert torch.equal(again.valid, first.valid)
    assert again.key == first.key


def test_more_views_leave_the_known_ones_alone(root: Path, log_lines: Callable[[], list[Line]]) -> None:
    one = _extract(head_context(root, views=1))
    log_lines()
    two = _extract(head_context(root, views=2))
    assert log_lines()[0]["computed"] == "20"
    assert torch.equal(two.train[:40], one.train)


def test_a_changed_image_is_computed_and_the_others_are_found_wherever_they_stand(
    root: Path, log_lines: Callable[[], list[Line]]
) -> None:
    first = _extract(head_context(root, views=1))
    log_lines()
    changed = tinted_images(20)
    changed[5] = (1, tinted(1, 777))
    _replace_train(root, [changed[19], *changed[:19]])
    again = _extract(head_context(root, views=1))
    assert log_lines()[0]["computed"] == "2"  # it alone, in both views
    order = [19, *range(19)]
    kept = [place for place in range(20) if order[place] != 5]
    for view in (0, 20):
        assert torch.equal(again.train[view:][kept], first.train[view:][[order[place] for place in kept]])
        assert not torch.allclose(again.train[view + 6], first.train[view + 5], atol=0.05)


def test_the_same_image_twice_is_computed_once(root: Path) -> None:
    _replace_train(root, tinted_images(10) + tinted_images(10))
    features = _extract(head_context(root))
    assert torch.equal(features.train[:10], features.train[10:])
    stored = sum(file.stat().st_size for file in chunks(root))
    assert stored < 20 * (WIDTH * 4 + 32)


@pytest.mark.parametrize("changed", [{"image_size": 40}, {"precision": "bfloat16"}])
def test_another_transform_or_precision_finds_nothing(
    changed: dict[str, Any], root: Path, log_lines: Callable[[], list[Line]]
) -> None:
    _extract(head_context(root))
    log_lines()
    _extract(head_context(root, **changed))
    assert [line["reused"] for line in log_lines()] == ["0", "0"]


def test_other_weights_find_nothing(root: Path, log_lines: Callable[[], list[Line]]) -> None:
    first = _extract(head_context(root))
    log_lines()
    write_head_job(root, seed=1)
    again = _extract(head_context(root))
    assert [line["reused"] for line in log_lines()] == ["0", "0"]
    assert again.key != first.key


def test_the_seed_changes_the_views_only(root: Path, log_lines: Callable[[], list[Line]]) -> None:
    _extract(head_context(root, views=1))
    log_lines()
    _extract(head_context(root, views=1, seed=1))
    assert log_lines()[0]["reused"] == "20"


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_an_images_features_do_not_depend_on_the_images_beside_it(
    precision: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: what an interrupted run computes in another batch must be what the whole one computes."""
    monkeypatch.setattr(backbone, "MAX_NOISE", 1.0)
    shutil.copytree(root, tmp_path / "other")
    _replace_train(tmp_path / "other", tinted_images(20)[::-1])
    one = _extract(head_context(root, precision=precision))
    other = _extract(job := head_context(tmp_path / "other", precision=precision))
    assert str(job.precision) == f"torch.{precision}"
    assert torch.equal(one.train, other.train.flip(0))
    assert torch.equal(one.valid, other.valid)


@pytest.mark.parametrize(("precision", "share"), [("bfloat16", 0.01), ("int8", 0.2)])
def test_faster_precision_stays_near_float32(
    precision: str, share: float, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 of random weights is coarser than of trained ones."""
    monkeypatch.setattr(backbone, "MAX_NOISE", share)
    exact, job = _extract(head_context(root)), head_context(root, precision=precision)
    found = _extract(job)
    assert 0 < backbone.feature_noise(exact.valid, found.valid) < share
    assert str(job.precision) == f"torch.{precision}"


def test_int8_that_is_too_coarse_is_refused_and_not_tried_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backbone, "MAX_NOISE", 0.0)
    job = head_context(root, precision="int8")
    first = _extract(job)
    output = capsys.readouterr().out
    assert "int8 is too coarse here: " in output
    assert "backbone precision=int8" not in output
    assert str(job.precision) != "torch.int8"
    assert torch.equal(_extract(head_context(root, precision="int8")).train, first.train)
    output = capsys.readouterr().out
    assert "int8 was found too coarse" in output
    assert "computed=0" in output


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
def test_a_damaged_chunk_is_logged_and_computed_again(
    damage: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = _extract(head_context(root))
    capsys.readouterr()
    file = chunks(root)[0]
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes({"cut": bytes(data[:-30]), "flip": bytes(data), "empty": b"", "foreign": b"x" * 99}[damage])
    again = _extract(head_context(root))
    output = capsys.readouterr().out
    assert f"features {file.name} of {file.parent.name} are damaged and computed again" in output
    assert torch.equal(again.train, first.train)
    assert torch.equal(again.valid, first.valid)
    _extract(head_context(root))
    assert "damaged" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nan", r"The weights' bn1\.bias holds infinite or undefined numbers"),
        ("3e38", r"no finite features for cat/0\.img of the channel train"),
    ],
)
def test_weights_that_give_no_numbers_are_refused(value: str, message: str, root: Path) -> None:
    file = channel(root, "weights") / "weights.pth"
    state = torch.load(file, weights_only=True)
    state["bn1.bias"].fill_(float(value))
    torch.save(state, file)
    with pytest.raises(TrainingError, match=message):
        _extract(head_context(root))
    assert chunks(root) == []


def test_an_image_that_cannot_be_decoded_is_named(root: Path) -> None:
    _replace_train(root, [*tinted_images(20), (0, b"no picture")])
    with pytest.raises(TrainingError, match=r"cat/20\.img .* cannot be decoded"):
        _extract(head_context(root))


def test_a_full_disk_is_the_reason_and_leaves_no_half_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.train.checkpoint.os.fsync", _no_room)
    with pytest.raises(TrainingError, match=r"Features in .* cannot be written: No space left on device"):
        _extract(head_context(root))
    assert list((root / "checkpoints" / "features").glob("*/*")) == []


def _no_room(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_the_path_for_gpus_gives_the_same_features(root: Path) -> None:
    job = head_context(root)
    network, _ = _backbone(job)
    images = Images(job.train_split, job.preprocessing, augment=False)
    items = [(index, 0) for index in range(20)]
    pixels = torch.stack([images[item][0] for item in items])
    found = torch.cat(list(TorchBackbone(network, CPU, torch.float32).run(torch.split(pixels, 8))))
    torch.testing.assert_close(found, features_in_torch(network, images, items), rtol=1e-3, atol=1e-4)
