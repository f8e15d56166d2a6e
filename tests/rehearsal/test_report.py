"""What a rehearsal leaves behind, of everything, of nothing, and of what would harm its reader."""

import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kennel.console import Step
from kennel.rehearsal.interfaces import CoverageRow
from kennel.rehearsal.report import Prediction, RehearsalReport, duration, refused, share, verdicts, write

HOSTILE = "<img src=x onerror=alert(1)>\"'{{7*7}}</style><script>"
NOTHING = RehearsalReport(stage="Dev", started=datetime(2026, 11, 21, 12, tzinfo=UTC))


def picture(side: int = 8) -> bytes:
    packed = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(packed, "PNG")
    return packed.getvalue()


def evaluation(*classes: str) -> dict[str, Any]:
    return {
        "metrics": {"accuracy": {"value": 0.9987}, "macro_f1": {"value": 1.0}},
        "test_samples": 1500,
        "classes": list(classes),
    }


def full(name: str = "dog") -> RehearsalReport:
    """A report in which every text that comes from outside is `name`."""
    counted = {"count": 1}
    top = [{"label": name, "probability": 0.75}, {"label": "cat", "probability": 0.25}]
    return replace(
        NOTHING,
        data=name,
        machine={name: name},
        steps=[Step("Deploy", 2.0, "done", name, 0.0), Step(name, 90.5, "done", "", 2.0, 1)],
        epochs=[{"step": name, "epoch": 1, "train_loss": 2.0, "valid_loss": float("nan"), "valid_accuracy": 0.5}],  # type: ignore[dict-item]
        trials=[{"trial": name}],
        prepare={
            "splits": {"train": {"images": 1259}},
            "left_out": {"count": 1, "files": [{"name": name, "reason": name}]},
            "identical": counted,
            "warnings": [name],
        },
        evaluation=evaluation(name, "cat"),
        predictions=[
            Prediction(name, name, 0.75, top, "cat", picture()),
            Prediction("x", "", 0.0, error=name),
        ],
        coverage=[CoverageRow(name, name, "enacted", name), CoverageRow("AWS::Z", "Z", "stand-in", "instead")],
        overrides={name: name},
    )


class Page(HTMLParser):
    """Collects tags with their attributes, the visible text, and ids."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def written(report: RehearsalReport, out: Path) -> tuple[dict[str, Any], Page]:
    path = write(report, out)
    return json.loads((out / "rehearsal.json").read_text(encoding="utf-8")), Page(path)


def test_the_json_has_accuracy_steps_and_predictions(tmp_path: Path) -> None:
    data, _ = written(full(), tmp_path)
    assert data["test_accuracy"] == 0.9987
    assert data["test_interval"] == pytest.approx([0.9951, 0.9996], abs=1e-3)
    assert data["seconds"] == 92.5
    assert [(step["name"], step["seconds"]) for step in data["steps"]] == [("Deploy", 2.0), ("dog", 90.5)]
    first = data["predictions"][0]
    assert (first["file"], first["label"], first["probability"], first["truth"]) == ("dog", "dog", 0.75, "cat")
    assert first["top"][1] == {"label": "cat", "probability": 0.25}
    assert data["predictions"][1]["error"] == "dog"
    assert data["coverage"][1] == {"type": "AWS::Z", "logical_id": "Z", "status": "stand-in", "note": "instead"}


def test_a_number_that_json_has_no_word_for_becomes_null(tmp_path: Path) -> None:
    data, _ = written(full(), tmp_path)
    assert data["epochs"][0]["valid_loss"] is None
    assert data["epochs"][0]["train_loss"] == 2.0


def test_the_page_says_what_was_found(tmp_path: Path) -> None:
    _, page = written(full(), tmp_path)
    for said in (
        "99.9 %",
        "99.5 % to 99.9 %",
        "1 min 32 s",
        "1,259",
        "Every step of the deployed system ran",
        "is cat",
        "75.0 %",
        "stand-in",
    ):
        assert said in re.sub(r"\s+", " ", page.text), said


def test_a_report_of_nothing_can_be_written_too(tmp_path: Path) -> None:
    data, page = written(NOTHING, tmp_path)
    assert data["test_accuracy"] is None
    assert data["steps"] == data["predictions"] == []
    assert "What ran" not in page.text


def test_a_failure_is_the_verdict_with_its_step_and_reason(tmp_path: Path) -> None:
    steps = [Step("Deploy", 1.0, "done"), Step("Train", 2.0, "failed", "loss is nan", 1.0)]
    data, page = written(replace(NOTHING, steps=steps, failure="The pipeline failed."), tmp_path)
    assert data["failure"] == "The pipeline failed."
    assert "Train: The pipeline failed." in page.text
    assert "Every step" not in page.text


def test_a_denied_call_spoils_the_verdict(tmp_path: Path) -> None:
    _, page = written(replace(full(), denied=["s3:GetObject on b"]), tmp_path)
    assert "1 denied call: the synthesized policies lack a permission." in page.text
    assert "Every step" not in page.text


def test_hostile_names_stay_text_wherever_they_stand(tmp_path: Path) -> None:
    _, page = written(full(HOSTILE), tmp_path)
    _, tame = written(full(), tmp_path)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in tame.tags]
    assert not page.all("script")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(HOSTILE) >= 10
    assert "49" not in page.text.replace("249", "")


def test_a_name_that_utf_8_cannot_say_does_not_lose_the_report(tmp_path: Path) -> None:
    data, _ = written(full("\udcff.png"), tmp_path)
    assert data["predictions"][0]["file"] == "?.png"


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    _, page = written(replace(full(), model_page=model_page(tmp_path)), tmp_path)
    assert {"default-src 'none'; img-src data:; style-src 'unsafe-inline'"} <= {
        attributes.get("content") for attributes in page.all("meta")
    }
    assert not page.all("link") + page.all("iframe")
    assert [anchor["href"] for anchor in page.all("a")] == ["model.html"]  # and that lies beside it
    assert all((image["src"] or "").startswith("data:image/") for image in page.all("img"))
    assert not re.search(r"url\(|@import", page.source)


def test_every_picture_has_words_and_every_section_a_heading(tmp_path: Path) -> None:
    _, page = written(full(), tmp_path)
    assert page.all("img")
    assert all(image.get("alt") for image in page.all("img"))
    headings = {attributes.get("id") for attributes in page.all("h2")}
    assert {attributes.get("aria-labelledby") for attributes in page.all("section")} == headings
    assert len(page.all("h1")) == 1


@pytest.mark.parametrize("image", [b"", b"no picture", picture()[:40]], ids=["nothing", "text", "cut short"])
def test_a_picture_that_cannot_be_shown_is_said(tmp_path: Path, image: bytes) -> None:
    _, page = written(replace(NOTHING, predictions=[Prediction("x.png", "dog", 1.0, image=image)]), tmp_path)
    assert "no picture" in page.text
    assert not page.all("img")


def test_large_pictures_become_small_ones_and_small_ones_keep_their_pixels(tmp_path: Path) -> None:
    shown = [Prediction("big", "dog", 1.0, image=picture(3000)), Prediction("small", "dog", 1.0, image=picture(8))]
    _, page = written(replace(NOTHING, predictions=shown), tmp_path)
    big, small = page.all("img")
    assert len(big["src"] or "") < 20_000
    assert (big.get("class"), small.get("class")) == (None, "pixels")


def test_resources_are_grouped_by_type_the_least_real_first(tmp_path: Path) -> None:
    rows = [
        CoverageRow("AWS::A", "One", "enacted"),
        CoverageRow("AWS::B", "Two", "partial", "kept, never evaluated"),
        CoverageRow("AWS::B", "Three", "enacted"),
        CoverageRow("AWS::C", "Four", "stand-in", "not built"),
    ]
    _, page = written(replace(NOTHING, coverage=rows), tmp_path)
    assert page.text.index("AWS::C") < page.text.index("AWS::B") < page.text.index("AWS::A")
    assert page.text.count("AWS::B") == 1
    assert "Two, Three" in page.text


def model_page(folder: Path) -> Path:
    (folder / "fetched.html").write_text("the model's own report")
    return folder / "fetched.html"


def test_the_models_own_report_stands_beside_the_rehearsals_and_goes_with_the_next_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    written(replace(full(), model_page=model_page(tmp_path)), out)
    assert (out / "model.html").read_text() == "the model's own report"
    _, page = written(full(), out)
    assert not (out / "model.html").exists()
    assert not page.all("a")


def test_none_of_these_and_not_sure_are_two_answers(tmp_path: Path) -> None:
    answers = {"x.png": "none_of_these", "y.png": "not_sure", "z.png": "class"}
    shown = [Prediction(name, f"dog {name}", 0.2, answer=answer) for name, answer in answers.items()]
    data, page = written(replace(NOTHING, predictions=shown), tmp_path)
    assert [one["answer"] for one in data["predictions"]] == [*answers.values()]
    assert "None of these, at best dog x.png" in page.text
    assert "Not sure, at best dog y.png" in page.text
    assert "at best dog z.png" not in page.text


def test_pictures_of_no_class_are_counted_apart_and_the_page_shows_first_those_that_were_taken_for_one(
    tmp_path: Path,
) -> None:
    foreign = [Prediction(f"{n}.png", "dog", 0.9, answer="none_of_these", foreign=True) for n in range(40)]
    foreign += [replace(foreign[0], answer="not_sure"), replace(foreign[0], file="wrong.png", answer="class")]
    shown = [Prediction("a.png", "cat", 0.9, truth="cat"), *foreign, replace(foreign[0], error="no picture")]
    assert [foreign[number].verdict for number in (0, -2, -1)] == ["right", "not_sure", "wrong"]
    assert verdicts(shown) == {"right": 1}
    assert refused(shown) == "40 of 42 pictures of no class 'none of these', 1 'not sure'"
    assert refused(shown[:1]) == ""
    _, page = written(replace(NOTHING, predictions=shown), tmp_path)
    assert "40 of 42 pictures of no class 'none of these', 1 'not sure'; 24 are shown here" in " ".join(
        page.text.split()
    )
    assert "✗ is none of these" in page.text
    assert page.text.index("wrong.png") < page.text.index("5.png")
    assert "39.png" not in page.text


def test_an_abstention_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    cat, dog = Prediction("a.png", "cat", 0.9, truth="cat"), Prediction("b.png", "dog", 0.9, truth="cat")
    refusals = [replace(cat, answer="not_sure"), replace(dog, answer="none_of_these")]
    shown = [cat, dog, *refusals, replace(cat, error="no picture")]
    assert [one.verdict for one in shown] == ["right", "wrong", "not_sure", "none_of_these", ""]
    assert verdicts(shown) == {"right": 1, "wrong": 1, "not_sure": 1, "none_of_these": 1}
    _, page = written(replace(NOTHING, predictions=shown), tmp_path)
    assert "1 of 4, 1 “none of these”, 1 “not sure”" in " ".join(page.text.split())


def test_writing_again_replaces_both_files_and_leaves_nothing_beside(tmp_path: Path) -> None:
    written(full(), tmp_path)
    data, _ = written(replace(full(), stage="Prod"), tmp_path)
    assert data["stage"] == "Prod"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rehearsal.json", "report.html"]


@pytest.mark.parametrize(("value", "text"), [(1.0, "100.0 %"), (0.99999, "99.9 %"), (0.0, "0.0 %"), (0.123, "12.3 %")])
def test_only_the_perfect_is_a_hundred_percent(value: float, text: str) -> None:
    assert share(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3725, "62 min 05 s")]
)
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
