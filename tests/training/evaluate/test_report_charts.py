"""The charts of the model's report: what they show, and the SVG that stands in the page."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as sklearns  # type: ignore[import-untyped]

from training.evaluate.charts import Chart, Charts, confusion_matrix, draw, shown_classes
from training.evaluate.scores import Answers

HISTORY = [{"epoch": n, "train_loss": 2 / n, "valid_loss": 3 / n, "valid_accuracy": 1 - 0.5 / n} for n in (1, 2, 3)]
PAIRS = [(0, 0), (0, 0), (0, 1), (0, 1), (1, 1), (1, 2), (2, 2), (2, 2), (2, 2), (2, 0)]  # (true, predicted)


def _answers(pairs: list[tuple[int, int]] = PAIRS) -> Answers:
    labels, predicted = np.array(pairs).T
    confidence = np.linspace(0.9, 0.6, len(pairs))
    return Answers(labels, predicted, confidence, confidence**0.5, (labels != predicted).astype(np.int64))


def _charts(names: tuple[str, ...] = ("a", "b", "c"), **record: object) -> Charts:
    return draw(_answers(), names, [0.5] * len(names), record)


def _texts(chart: Chart) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", chart.svg)


@pytest.fixture(scope="module")
def charts() -> Charts:
    return _charts(history=HISTORY, trials=[{"accuracy": value} for value in (0.5, None, 0.7, 0.6)])


def test_the_curves_show_accuracy_loss_and_the_best_trial(charts: Charts) -> None:
    labels = [re.findall('aria-label="([^"]*)"', chart.svg) for chart in charts.curves]
    assert labels == [
        ["Accuracy on the validation split: accuracy ends at 0.8333"],
        ["Loss (cross-entropy in nats): training ends at 0.6667, validation ends at 1"],
        ["Best accuracy of the trials so far: best ends at 0.7"],
    ]
    assert {"1", "2", "3", "epoch"} <= set(_texts(charts.curves[0]))  # epochs are whole numbers
    assert "100 %" in _texts(charts.curves[0])


def test_a_curve_without_finite_values_is_left_out() -> None:
    history = [{"epoch": 1, "train_loss": math.inf, "valid_loss": math.nan}]
    assert _charts(history=history, trials=[{"accuracy": None}]).curves == []


def test_a_chart_is_an_svg_element_in_the_pages_colours_and_font(charts: Charts) -> None:
    for chart in (*charts.curves, charts.calibration, charts.coverage, charts.confusion):
        assert chart.svg.startswith('<svg viewBox="0 0 ')
        assert chart.svg.rstrip().endswith("</svg>")
        assert "<style" not in chart.svg  # would be the whole page's
        assert "var(--" in chart.svg
        used = set(re.findall("#[0-9a-f]{6}", chart.svg)) - {"#ffffff"}
        assert not used, "a colour that stays light on a dark page"


def test_no_id_stands_twice_in_a_page(charts: Charts) -> None:
    svg = "".join(chart.svg for chart in (*charts.curves, charts.calibration, charts.coverage, charts.confusion))
    ids = re.findall(r' id="([^"]*)"', svg)
    assert len(ids) == len(set(ids)) > 0
    assert set(re.findall(r'(?:url\(|href=")#([^")]*)', svg)) <= set(ids)


def test_the_same_answers_make_the_same_bytes(charts: Charts) -> None:
    assert draw(_answers(), ("a", "b", "c"), [0.5] * 3, {"history": HISTORY}).curves[1] == charts.curves[1]


def test_few_classes_have_their_numbers_in_the_matrix(charts: Charts) -> None:
    texts = _texts(charts.confusion)
    assert [text for text in texts if text.isdigit()] == ["2", "2", "1", "1", "1", "3"]
    assert texts[:3] == ["a", "b", "c"]


def test_any_name_is_only_text() -> None:
    names = ("caf\udce9", "\u72ac</text><script>", "$x_$", "a\nb" * 50)
    chart = draw(_answers(), names, [0.5] * 4, {}).confusion
    parser = HTMLParser()
    tags: list[str] = []
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(chart.svg)
    assert "script" not in tags
    assert {"caf?", "$x $"} <= set(_texts(chart))
    chart.svg.encode("utf-8")


def test_the_matrix_has_true_classes_in_rows() -> None:
    answers = _answers()
    matrix = confusion_matrix(answers, shown_classes([0.5, 0.5, 0.75]))
    assert matrix.tolist() == [[2, 2, 0], [0, 1, 1], [1, 0, 3]]
    assert matrix.tolist() == sklearns(answers.labels, answers.predicted).tolist()


def test_classes_without_a_test_image_leave_the_matrix_to_the_others() -> None:
    chosen = shown_classes([math.nan] * 60 + [1.0] * 140).tolist()
    assert len(chosen) == 150
    assert set(range(60, 200)) <= set(chosen)


def test_of_ten_thousand_classes_the_matrix_shows_those_of_the_lowest_recall() -> None:
    count = 10_000
    recalls = np.ones(count)
    recalls[[17, 4000]] = 0.0
    chosen = shown_classes(recalls.tolist())
    assert len(chosen) == 150
    assert {17, 4000} <= set(chosen.tolist())
    answers = _answers([(one, one + (one in (17, 4000))) for one in range(count)])
    matrix = confusion_matrix(answers, chosen)
    assert matrix.shape == (150, 150)
    assert matrix[chosen.tolist().index(17)].sum() == 1
