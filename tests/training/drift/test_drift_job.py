"""The drift job on captured lines as SageMaker writes them, with a model whose answers are known."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.small import pack, solid, write_model, write_split
from training.__main__ import main
from training.drift import capture
from training.drift.capture import Captured, read_image, read_labels
from training.passport import write_passport
from training.paths import Paths


def line(image: bytes, *, day: str = "2026-11-29", **about: Any) -> str:
    """One line of a captured file, in the shape of AWS's developer guide."""
    sent = {"observedContentType": "image/jpeg", "mode": "INPUT", "encoding": "BASE64"}
    metadata = {"eventId": "event", "inferenceTime": f"{day}T05:12:20Z", **about}
    data = {**sent, "data": base64.b64encode(image).decode()}
    return json.dumps({"captureData": {"endpointInput": data}, "eventMetadata": metadata, "eventVersion": "0"})


def test_what_is_no_new_photo_of_a_caller_is_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "LONGEST", 4000)
    lines = [
        line(b"one", inferenceId="request-1"),
        line(b"one", inferenceId="request-2"),
        line(b"two"),
        line(b"x" * 9000),
        line(b"three", inferenceId="kennel-probe-7"),
        line(b"four", customAttributes=["kennel-probe"]),
        line(b"five").replace("image/jpeg", "application/json"),
        line(b"six").replace('"data": "', '"data": "?'),
        '{"captureData": {',
        "[1]",
        "[" * 3000,
        "",
        line(b"last", inferenceId="request-3"),
    ]
    file = tmp_path / "2026" / "11" / "29" / "05" / "12-20-1.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(lines))
    captured = Captured(tmp_path)
    found = list(captured)
    assert [(one.id, one.image) for one in found] == [("request-1", b"one"), ("event", b"two"), ("request-3", b"last")]
    assert captured.lines == 12
    assert captured.skipped == {
        "same photo again": 1,
        "longer than a photo can be": 1,
        "probe of a release": 2,
        "no single photo": 1,
        "broken line": 4,
    }
    assert read_image(found[-1].file, found[-1].offset) == b"last"


def test_the_last_label_of_a_request_counts(tmp_path: Path) -> None:
    shape = '{{"groundTruthData": {{"data": "{}", "encoding": "CSV"}}, "eventMetadata": {{"eventId": "r"}}}}\n'
    (tmp_path / "1.jsonl").write_text(shape.format("beagle"))
    (tmp_path / "2.jsonl").write_text("{broken\n" + shape.format("pug"))
    assert read_labels(tmp_path) == {"r": "pug"}
    assert read_labels(tmp_path / "absent") == {}


Photos = Callable[[int], list[bytes]]


def noise(number: int, *, brighter: float = 0.0) -> bytes:
    """A photo of a colour that is drawn by its number."""
    random = np.random.default_rng(number)
    red, green = np.clip(random.normal(110, 30, 2) + brighter, 0, 255).astype(int)
    return solid(int(red), int(green), 20 + int(random.integers(0, 8)))


@pytest.fixture
def endpoint(opt_ml: Paths, tmp_path: Path) -> Paths:
    """A model with its reference where the job expects them."""
    images = [(number % 2, noise(number)) for number in range(400)]
    write_split(opt_ml.processing_input("test"), images)
    record = write_model(tmp_path / "model", abstain={"threshold": 0.5, "coverage": 1.0, "precision": 0.5})
    write_passport(tmp_path / "model", record, image="registry/image:1")
    pack(tmp_path / "model", opt_ml.processing_input("model") / "model.tar.gz")
    assert main(["evaluate"]) == 0
    opt_ml.processing_output("evaluation").rename(opt_ml.processing_input("evaluation"))
    return opt_ml


def write_days(paths: Paths, **days: float) -> None:
    """Write 200 captured photos of each day, brighter by so many of 255."""
    for number, (day, brighter) in enumerate(days.items()):
        photos = [noise(1000 * (number + 1) + each, brighter=brighter) for each in range(220)]
        lines = [line(one, day=day, inferenceId=f"{day}-{place}") for place, one in enumerate(photos)]
        folder = paths.processing_input("capture") / day.replace("-", "/")
        folder.mkdir(parents=True)
        (folder / "05-00-1.jsonl").write_text("\n".join(lines))


def report(paths: Paths) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((paths.processing_output("drift") / "drift.json").read_text("utf-8"))
    return found


def test_two_shifted_days_running_are_an_alarm_and_the_page_names_what_moved(endpoint: Paths) -> None:
    write_days(endpoint, **{"2026-11-27": 0, "2026-11-28": 60, "2026-11-29": 60})
    truth = {"groundTruthData": {"data": "red", "encoding": "CSV"}, "eventMetadata": {"eventId": "2026-11-29-3"}}
    labels = endpoint.processing_input("labels")
    labels.mkdir(parents=True)
    (labels / "1.jsonl").write_text(json.dumps(truth))
    assert main(["drift", "--expected-lines", "900"]) == 0
    found = report(endpoint)
    assert [one["breach"] for one in found["windows"]] == [False, True, True]
    assert "brightness" in found["windows"][-1]["moved"]
    assert found["alarm"]
    assert found["labelled"]["requests"] == 1
    page = (endpoint.processing_output("drift") / "drift.html").read_text("utf-8")
    assert "What callers send has changed" in page
    assert "brightness" in page
    assert "900 lines were expected" in page
    assert page.count("data:image/jpeg") == 12


def test_one_shifted_day_is_no_alarm(endpoint: Paths) -> None:
    write_days(endpoint, **{"2026-11-28": 0, "2026-11-29": 60})
    assert main(["drift"]) == 0
    assert [one["breach"] for one in report(endpoint)["windows"]] == [False, True]
    assert not report(endpoint)["alarm"]


def test_no_captured_photo_is_one_sentence_that_asks_for_the_setting(
    endpoint: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drift"]) == 1
    assert "Is data capture on (hosting.capture_percent)?" in capsys.readouterr().err
