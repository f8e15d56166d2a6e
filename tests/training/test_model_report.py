"""The model's report: whole, escaped, bounded, and showing what is worth looking at."""

import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.small import solid, write_split
from training.evaluate import run
from training.evaluate.artifact import Passport
from training.evaluate.figures import draw
from training.evaluate.network import Network
from training.evaluate.page import render
from training.evaluate.scores import Answers
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
    "trained_on": {"instance_type": "ml.m5.xlarge", "instances": 1, "seconds": 90.0},
    "data": {"fingerprint": "ab12"},
}

Report = Callable[..., str]


@pytest.fixture
def report(tmp_path: Path) -> Report:
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
        answers = found["float32"]
        whole = {**RECORD, **record}
        threshold = whole["abstain"]["threshold"] if whole.get("abstain") else None
        network = Network(classes, Preprocessing(32, 32), 2.0, threshold, whole, {})
        summary = run.summarize(found, split, network, Passport("5ea1", "ab12", "c0de", ""))
        draw(tmp_path / "figures", answers, summary["per_class"])
        return render(summary, answers, split, whole, tmp_path / "figures" / "confusion.png")

    return make


def _answers(labels: NDArray[np.int64], classes: int, wrong: int) -> Answers:
    told = labels.copy()
    told[:wrong] = (told[:wrong] + 1) % classes
    confidence = np.linspace(0.9, 0.6, len(labels))
    return Answers(labels, told, confidence, confidence**0.5, (told != labels).astype(np.int64))


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
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset")]
        if tag == "img" and not given.get("alt"):
            self.bare.append(tag)
        if tag not in ("meta", "img", "line", "polyline", "circle", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += f" {data}" if self._open and self._open[-1] != "style" else ""


def _said(page: str) -> str:
    return " ".join(_Page(page).text.split())


def test_the_page_asks_nobody_for_anything(report: Report) -> None:
    page = report(("cat", "dog"), 12)
    parsed = _Page(page)
    assert "script" not in parsed.tags
    assert "link" not in parsed.tags
    assert parsed.sources
    assert all(source.startswith("data:image/") for source in parsed.sources)
    assert not re.search(r"url\(|@import|https?://", page)
    assert parsed.bare == []  # every picture says what it is


def test_the_numbers_are_there_with_their_interval(report: Report) -> None:
    said = _said(report(("cat", "dog"), 12))
    assert "Right on 75.0 % of 12 images that training never saw" in said
    assert "lies between 46.8 % and 91.1 %" in said
    assert "ab12" in said
    assert "Learning rate 0.0029" in said
    assert "5ea1" in said
    assert "went from 20.0 % to 4.0 %" in said


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
    assert "Mistakes it is surest of" not in page
    assert "Most often taken for each other" not in page
    assert "Right on 100.0 % of 4 images" in _said(page)


def test_the_threshold_is_shown_as_promised_and_as_measured(report: Report) -> None:
    said = _said(report(("cat", "dog"), 12, abstain={"threshold": 0.7, "coverage": 0.95, "precision": 0.97}))
    assert "Below a confidence of 0.7 the answer is “none of these”" in said
    assert "Validation, where it was chosen 95.0 % 97.0 %" in said
    assert "Test 66.7 % 62.5 %" in said


def test_a_threshold_that_could_not_be_had_is_explained(report: Report) -> None:
    assert "no threshold reached the precision of 99.0 %" in _said(
        report(("cat", "dog"), 4, hyperparameters={"abstain_precision": 0.99})
    )


def test_trials_are_shown_best_first(report: Report) -> None:
    trials = [{"trial": number, "accuracy": 0.5 + number / 100, "learning_rate": 0.1} for number in range(30)]
    said = _said(report(("cat", "dog"), 4, trials=trials))
    assert "The best 10 of 30 trials" in said
    assert "Trial Accuracy Learning rate 29 0.79 0.1 28 0.78" in said


def test_a_trial_without_an_end_is_the_worst(report: Report) -> None:
    said = _said(report(("cat", "dog"), 4, trials=[{"trial": 1, "accuracy": None}, {"trial": 2, "accuracy": 0.5}]))
    assert "Trial Accuracy 2 0.5 1 none" in said


def test_trials_that_all_ran_away_make_no_curve(report: Report) -> None:
    assert "Best trial so far" not in report(("cat", "dog"), 4, trials=[{"trial": 1, "accuracy": None}])


def test_classes_stand_with_the_weakest_first_and_the_many_are_folded(report: Report) -> None:
    page = report(tuple(f"class {number:03}" for number in range(133)), 266, wrong=2)
    table = page[page.index('id="classes"') :]
    assert table.index("class 001") < table.index("class 000") < table.index("class 002")  # by recall, then F1
    assert "113 more classes" in table
    assert table.index("class 010") < table.index("<details>") < table.index("class 132")


def test_ten_thousand_classes_make_no_larger_a_page_than_a_browser_likes(report: Report) -> None:
    page = report(tuple(f"class {number}" for number in range(10_000)), 300, wrong=200)
    assert len(page) < 3_000_000
    assert "9,480 stronger classes are in" in page


def test_an_image_that_cannot_be_shown_is_left_out(report: Report) -> None:
    assert "no picture" in report(("cat", "dog"), 4, data=b"no image")


def test_a_record_from_before_all_this_makes_a_page_too(report: Report) -> None:
    page = report(("cat", "dog"), 4, history=[], calibration=None, trained_on=None, hyperparameters={}, data=None)
    assert "How it learned" not in page
    assert "unknown" in page


def test_each_form_says_how_good_it_is_and_whether_it_is_offered(report: Report) -> None:
    exports = {
        "float32": {"agreement": 1.0, "largest_change": 1e-6, "accepted": True},
        "int8": {"agreement": 0.961, "largest_change": 0.32, "accepted": False, "reason": "it misses <b>something</b>"},
    }
    said = _said(report(("cat", "dog"), 12, worse={"bfloat16": 4}, exports=exports))
    assert "float32 75.0 % 46.8 % 100.0 % 0.0 % yes" in said
    assert "bfloat16 66.7 % 39.1 % none none where the processor multiplies it" in said
    assert "int8 none none 96.1 % 32.0 % no: it misses <b>something</b>" in said
    assert "with 95 % confidence at least 39.1 % of its answers are right" in said
