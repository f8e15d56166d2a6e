"""The model's report: complete, escaped, of bounded size, and showing what is worth looking at."""

import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup
from numpy.typing import NDArray

from tests.training.small import solid, write_split
from training.evaluate import charts, run
from training.evaluate.artifact import Model, Provenance
from training.evaluate.page import Form, Thumbnails, cost, duration, forms, render, share
from training.evaluate.scores import Answers
from training.known import Reference
from training.transform import Preprocessing

HISTORY = [
    {"epoch": number, "train_loss": 1 / number, "valid_loss": 1.2 / number, "valid_accuracy": 1 - 0.5 / number}
    for number in (1, 2, 3)
]
RECORD = {
    "architecture": "resnet18",
    "temperature": 2.0,
    "calibration": {"error_before": 0.2, "error_after": 0.04, "samples": 77},
    "hyperparameters": {"learning_rate": 0.0029},
    "history": HISTORY,
    "trained_on": {"instance_type": "ml.m5.xlarge", "instances": 1, "seconds": 90.0, "phases": {"learning": 80.0}},
    "data": {"fingerprint": "ab12"},
}

Report = Callable[..., str]


@pytest.fixture
def without_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no charts, which takes most of a page's time; test_report_charts.py is about them."""
    none = charts.Chart("none", Markup(""))
    monkeypatch.setattr(charts, "draw", lambda *given: charts.Charts([], none, none, none))


@pytest.fixture
def report(without_charts: None, drawn_report: Report) -> Report:
    """The page without its charts."""
    return drawn_report


@pytest.fixture
def drawn_report(tmp_path: Path) -> Report:
    """The page on `images` solid pictures of `classes`, of which some are taken for the next class.

    `worse` are the mistakes of other precisions.
    """

    def make(
        classes: tuple[str, ...],
        images: int,
        *,
        wrong: int = 3,
        worse: Mapping[str, int] = MappingProxyType({}),
        data: bytes | None = None,
        **record: Any,
    ) -> str:
        labels = np.arange(images) % len(classes)
        split = write_split(
            tmp_path / "split",
            [(int(one), data or solid(int(one) % 256, n % 256)) for n, one in enumerate(labels)],
            classes,
        )
        found = {name: _answers(labels, len(classes), some) for name, some in {"float32": wrong, **worse}.items()}
        whole = {**RECORD, **record}
        threshold = whole["abstain"]["threshold"] if whole.get("abstain") else None
        known = whole.get("known")
        reference = known and Reference(np.ones((1, 3), np.float16), 1, known["threshold"])
        model = Model(classes, Preprocessing(32, 32), 2.0, threshold, reference, whole, {})
        summary = run.summarize(found, split, model, Provenance("5ea1", "ab12", "c0de", ""))
        return render(summary, found["float32"], split, whole)

    return make


def _answers(labels: NDArray[np.int64], classes: int, wrong: int) -> Answers:
    predicted = labels.copy()
    predicted[:wrong] = (predicted[:wrong] + 1) % classes
    confidence = np.linspace(0.9, 0.6, len(labels))
    similarity = np.where(np.arange(len(labels)) % 5 == 4, 0.5, 0.8)
    return Answers(labels, predicted, confidence, confidence**0.5, (predicted != labels).astype(np.int64), similarity)


class _Page(HTMLParser):
    """What the page loads, runs and says."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.bare: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.sources += [value or "" for name, value in attrs if name.endswith(("src", "href", "data", "srcset"))]
        if tag == "img" and not given.get("alt"):
            self.bare.append(tag)
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "img"):
            self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        self.text += f" {data}" if self._open and self._open[-1] != "style" else ""


def _text(page: str) -> str:
    return " ".join(_Page(page).text.split())


def test_the_page_with_its_charts_loads_nothing(drawn_report: Report) -> None:
    page = drawn_report(("cat", "dog"), 12)
    parsed = _Page(page)
    assert not {"script", "link"} & set(parsed.tags)
    assert parsed.tags.count("svg") == 5
    assert parsed.sources
    assert all(source.startswith(("data:image/", "#")) for source in parsed.sources)
    assert not re.search(r"url\((?!#)|@import|https?://", page)
    assert parsed.bare == []  # every picture says what it is
    assert "How it learned" in page


def test_the_numbers_are_there_with_their_interval(report: Report) -> None:
    text = _text(report(("cat", "dog"), 12))
    assert "Right on 75.0 % of 12 images that training never saw" in text
    assert "lies between 46.8 % and 91.1 %" in text
    assert "ab12" in text
    assert "Learning rate 0.0029" in text
    assert "5ea1" in text
    assert "went from 20.0 % to 4.0 %" in text


def test_hostile_names_are_only_text(report: Report) -> None:
    evil = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{ 7 * 7 }}", "</style><b>")
    page = report(evil, 12)
    parsed = _Page(page)
    assert "script" not in parsed.tags
    assert "x" not in parsed.sources
    assert "onerror" not in [name for tag in re.findall(r"<[^>]*>", page) for name in re.findall(r'\s(\w+)="', tag)]
    assert "<script>alert(1)</script>" in parsed.text
    assert "{{ 7 * 7 }}" in parsed.text


def test_the_surest_mistake_comes_first_with_its_picture(report: Report) -> None:
    page = report(("cat", "dog", "fox"), 12, wrong=2)
    card = page[page.index('class="card"') :]
    assert card.index("<b>cat</b>") < card.index("taken for dog") < card.index("confidence 90.0")
    assert 'alt="cat/0.png"' in card[: card.index("confidence")]


def test_confused_classes_are_shown_with_pictures_of_both(report: Report) -> None:
    page = report(("cat", "dog", "fox"), 12, wrong=1)
    pair = page[page.index('class="pairs"') : page.index('id="classes"')]
    left, right = pair.split("<figcaption>is <b>cat</b>")
    assert 'alt="cat/0.png"' in left
    assert 'alt="dog/1.png"' in right
    assert "taken for <b>dog</b>" in right


def test_a_class_is_shown_by_pictures_that_were_recognized(report: Report) -> None:
    page = report(("cat", "dog", "fox"), 12, wrong=5)  # fox/2 and dog/1, dog/4 are among the mistakes
    shown = page[page.index('class="pairs"') : page.index('id="classes"')]
    dog = shown[: shown.index("taken for <b>dog</b>")].rpartition('class="strip"')[2]
    assert 'alt="dog/7.png"' in dog
    assert 'alt="dog/1.png"' not in dog


def test_a_model_without_mistakes_shows_none(report: Report) -> None:
    page = report(("cat", "dog"), 4, wrong=0)
    assert "Mistakes of the highest confidence" not in page
    assert "Most often taken for each other" not in page
    assert "Right on 100.0 % of 4 images" in _text(page)


def test_the_threshold_is_shown_as_promised_and_as_measured(report: Report) -> None:
    text = _text(report(("cat", "dog"), 12, abstain={"threshold": 0.7, "coverage": 0.95, "precision": 0.97}))
    assert "Below a confidence of 0.7 the answer is “not sure”" in text
    assert "Validation, where it was chosen 95.0 % 97.0 %" in text
    assert "Test 66.7 % 62.5 %" in text


def test_the_distance_threshold_is_shown_as_promised_and_as_measured_beside_what_the_features_tell(
    report: Report,
) -> None:
    known = {"images": 1500, "neighbours": 10, "threshold": 0.6, "coverage": 0.97, "unseen_refused": 0.4}
    text = _text(report(("cat", "dog"), 12, known={**known, "note": "Take care."}))
    assert "compared with 1,500 training images in feature space" in text
    assert "similarity to the 10 nearest lies below 0.6 , the answer is “none of these”" in text
    assert "Validation, where it was chosen 97.0 % Test, float32 83.3 %" in text
    assert "Validation, their class left out 60.0 %" in text
    assert "Least often known on test: cat 83.3 %, dog 83.3 %." in text
    assert "Take care." in text
    assert "Right 58.3 % Wrong 25.0 % Not sure 0.0 % None of these 16.7 %" in text
    assert "Answered with a class 83.3 % 70.0 % right" in text


def test_a_model_that_cannot_say_none_of_these_says_why(report: Report) -> None:
    assert "The model cannot say so: every image counts as known." in _text(report(("cat", "dog"), 4))
    text = _text(report(("cat", "dog"), 4, known={"threshold": None, "note": "4 images are too few."}))
    assert "every image counts as known. 4 images are too few." in text


def test_a_threshold_that_could_not_be_had_is_explained(report: Report) -> None:
    assert "no threshold reached the precision of 99.0 %" in _text(
        report(("cat", "dog"), 4, hyperparameters={"abstain_precision": 0.99})
    )


def test_trials_are_shown_best_first(report: Report) -> None:
    trials = [{"trial": number, "accuracy": 0.5 + number / 100, "loss": 1.0 - number / 100} for number in range(30)]
    text = _text(report(("cat", "dog"), 4, trials=trials))
    assert "The best 10 of 30 trials" in text
    assert "Trial Accuracy Loss 29 0.79 0.71 28 0.78 0.72" in text


def test_a_trial_that_diverged_is_the_worst(report: Report) -> None:
    trials = [{"trial": 1, "loss": None}, {"trial": 2, "loss": 0.5}]
    assert "Trial Loss 2 0.5 1 none" in _text(report(("cat", "dog"), 4, trials=trials))


def test_the_seconds_of_training_are_shown_in_parts(report: Report) -> None:
    assert "Phases learning 1 min 20 s" in _text(report(("cat", "dog"), 4)).replace("\N{NO-BREAK SPACE}", " ")


def test_classes_stand_with_the_weakest_first_and_the_many_are_folded(report: Report) -> None:
    page = report(tuple(f"class {number:03}" for number in range(133)), 266, wrong=2)
    table = page[page.index('id="classes"') :]
    assert table.index("class 001") < table.index("class 000") < table.index("class 002")  # by recall, then F1
    assert "113 more classes" in table
    assert table.index("class 010") < table.index("<details>") < table.index("class 132")


def test_ten_thousand_classes_make_no_larger_a_page_than_a_browser_likes(drawn_report: Report) -> None:
    page = drawn_report(tuple(f"class {number}" for number in range(10_000)), 300, wrong=200)
    assert len(page) < 3_000_000
    assert "9,480 more classes, all stronger, are in" in page


def test_an_image_that_cannot_be_shown_is_left_out(report: Report) -> None:
    assert "no picture" in report(("cat", "dog"), 4, data=b"no image")


def test_the_record_of_an_early_version_makes_a_page_too(report: Report) -> None:
    page = report(("cat", "dog"), 4, history=[], calibration=None, trained_on=None, hyperparameters={}, data=None)
    assert "How it learned" not in page
    assert "unknown" in page


def test_each_form_says_how_good_it_is_and_whether_it_is_offered(report: Report) -> None:
    exports = {
        "float32": {"agreement": 1.0, "largest_change": 1e-6, "accepted": True},
        "int8": {"agreement": 0.961, "largest_change": 0.32, "accepted": False, "reason": "it misses <b>something</b>"},
    }
    text = _text(report(("cat", "dog"), 12, worse={"bfloat16": 4}, exports=exports))
    assert "float32 75.0 % 46.8 % 100.0 % 0.0 % yes" in text
    assert "bfloat16 66.7 % 39.1 % \N{EN DASH} \N{EN DASH} on processors with bfloat16" in text
    assert "int8 \N{EN DASH} \N{EN DASH} 96.1 % 32.0 % no: it misses <b>something</b>" in text
    assert "with 95 % confidence at least 39.1 % of its answers are right" in text


def test_the_pictures_together_have_a_bound(tmp_path: Path) -> None:
    split = write_split(tmp_path, [(0, solid(number, 1, side=300)) for number in range(9)])
    thumbnails = Thumbnails(split, budget=2_000)
    made = [thumbnails.picture(number).uri for number in range(9)]
    assert made[0].startswith("data:image/jpeg;base64,")
    assert made[-1] == ""
    assert sum(len(uri) for uri in made) <= 2_000


def test_a_picture_that_is_shown_twice_is_made_once(tmp_path: Path) -> None:
    thumbnails = Thumbnails(write_split(tmp_path, [(0, solid(1, 1))]))
    before = thumbnails.picture(0), thumbnails.budget
    assert (thumbnails.picture(0), thumbnails.budget) == before


def test_a_run_costs_its_seconds_on_its_instances(tmp_path: Path) -> None:
    table = tmp_path / "prices.json"
    table.write_text(
        '{"currency":"USD","region":"us-east-1","date":"2026-11-21","per_hour":{"ml.m5.xlarge":0.23,"ml.tiny":0.01}}'
    )
    amount, sentence = cost({"instance_type": "ml.m5.xlarge", "instances": 2, "seconds": 3600}, table)
    assert amount == "$0.46"
    assert "us-east-1 on 2026-11-21, 0.23 USD an hour" in sentence
    assert cost({"instance_type": "ml.tiny", "instances": 1, "seconds": 36}, table)[0] == "$0.0001"
    assert cost({"instance_type": "ml.other", "instances": 1, "seconds": 36}, table)[0] == "unknown"
    assert cost({"instance_type": "", "seconds": 36}, table)[0] == "no charge"
    assert cost({"instance_type": "ml.m5.xlarge", "seconds": 36}, tmp_path / "none.json")[0] == "unknown"


def test_nothing_but_perfection_is_a_hundred_percent() -> None:
    assert [share(value).replace("\N{NO-BREAK SPACE}", " ") for value in (1.0, 0.99999, 0.5, 0.0, None)] == [
        "100.0 %",
        "99.9 %",
        "50.0 %",
        "0.0 %",
        "\N{EN DASH}",
    ]


SAME = {"agreement": 1.0, "largest_change": 1e-6, "accepted": True}


def test_a_form_that_was_measured_stands_with_its_share_and_the_intervals_lower_end() -> None:
    measured = {"float32": {"accuracy": 0.9, "accuracy_lower": 0.8}, "int8": {"accuracy": 0.7, "accuracy_lower": 0.6}}
    int8 = {"agreement": 0.99, "largest_change": 0.05, "accepted": True}
    first, second, third = forms({"float32": SAME, "int8": int8}, measured)
    assert first == Form("float32", 0.9, 0.8, 1.0, 1e-6, "yes")
    assert second.offered == "on processors with bfloat16; not measured, this one has none"
    assert third == Form("int8", 0.7, 0.6, 0.99, 0.05, "yes")


def test_a_form_says_what_it_costs() -> None:
    int8 = {
        "agreement": 0.99,
        "largest_change": 0.05,
        "loss": 0.004,
        "loss_interval": [-0.006, 0.013],
        "accepted": True,
    }
    offered = forms({"int8": int8}, {})[-1].offered.replace("\N{NO-BREAK SPACE}", " ")
    assert offered == "yes; accuracy lost on validation: 0.4 % (-0.6 % to 1.3 %)"


def test_a_form_that_is_not_offered_says_why() -> None:
    *_, int8 = forms({"float32": SAME, "int8": {"accepted": False, "reason": "it was not asked for"}}, {})
    assert int8 == Form("int8", None, None, None, None, "no: it was not asked for")


def test_other_runtimes_forms_are_named_as_what_they_are() -> None:
    names = [one.name for one in forms({"float32": SAME, "onnx": SAME, "pt2": SAME}, {"bfloat16": {"accuracy": 1.0}})]
    assert names == ["float32", "bfloat16", "float32, ONNX", "float32, torch.export"]


def test_an_artifact_from_before_exports_offers_float32() -> None:
    assert [(one.name, one.offered) for one in forms({}, {"float32": {}, "bfloat16": {}})] == [
        ("float32", "yes"),
        ("bfloat16", "on processors with bfloat16"),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (245.4, "4 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7650, "2 h 08 min"),
    ],
)
def test_a_duration_is_rounded_to_what_is_shown(seconds: float, text: str) -> None:
    assert duration(seconds) == text
