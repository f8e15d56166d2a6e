"""Pictures, prices and percentages of the model's report."""

from pathlib import Path

from tests.training.small import solid, write_split
from training.evaluate import pictures, plots
from training.evaluate.forms import Form, forms
from training.evaluate.money import cost
from training.evaluate.page import share


def test_the_pictures_together_have_a_bound(tmp_path: Path) -> None:
    split = write_split(tmp_path, [(0, solid(number, 1, side=300)) for number in range(9)])
    album = pictures.Album(split, budget=2_000)
    made = [album.picture(number).uri for number in range(9)]
    assert made[0].startswith("data:image/jpeg;base64,")
    assert made[-1] == ""
    assert sum(len(uri) for uri in made) <= 2_000


def test_a_picture_that_is_shown_twice_is_made_once(tmp_path: Path) -> None:
    album = pictures.Album(write_split(tmp_path, [(0, solid(1, 1))]))
    before = album.picture(0), album.budget
    assert (album.picture(0), album.budget) == before


def test_a_run_costs_its_seconds_on_its_instances(tmp_path: Path) -> None:
    table = tmp_path / "prices.json"
    table.write_text(
        '{"currency":"USD","region":"us-east-1","date":"2026-11-21","per_hour":{"ml.m5.xlarge":0.23,"ml.tiny":0.01}}'
    )
    amount, sentence = cost({"instance_type": "ml.m5.xlarge", "instances": 2, "seconds": 3600}, table)
    assert amount == "$0.46"
    assert "us-east-1, 2026-11-21: 0.23 USD an hour" in sentence
    assert cost({"instance_type": "ml.tiny", "instances": 1, "seconds": 36}, table)[0] == "$0.0001"
    assert cost({"instance_type": "ml.other", "instances": 1, "seconds": 36}, table)[0] == "unknown"
    assert cost({"instance_type": "", "seconds": 36}, table)[0] == "no charge"
    assert cost({"instance_type": "ml.m5.xlarge", "seconds": 36}, tmp_path / "none.json")[0] == "unknown"


def test_the_best_trial_so_far_never_gets_worse() -> None:
    [drawn] = plots.curves([], [{"accuracy": value} for value in (0.5, 0.7, 0.6)])
    assert [line.last for line in drawn.lines] == [0.7]


def test_a_curve_without_finite_values_is_not_drawn() -> None:
    assert plots.curves([{"epoch": 1, "valid_loss": float("nan")}], []) == []


def test_nothing_but_perfection_is_a_hundred_percent() -> None:
    assert [share(value).replace("\N{NO-BREAK SPACE}", " ") for value in (1.0, 0.99999, 0.5, 0.0, None)] == [
        "100.0 %",
        "99.9 %",
        "50.0 %",
        "0.0 %",
        "none",
    ]


SAME = {"agreement": 1.0, "largest_change": 1e-6, "accepted": True}


def test_a_form_that_was_measured_stands_with_its_share_and_the_intervals_lower_end() -> None:
    measured = {"float32": {"accuracy": 0.9, "accuracy_lower": 0.8}, "int8": {"accuracy": 0.7, "accuracy_lower": 0.6}}
    int8 = {"agreement": 0.99, "largest_change": 0.05, "accepted": True}
    first, second, third = forms({"float32": SAME, "int8": int8}, measured)
    assert first == Form("float32", 0.9, 0.8, 1.0, 1e-6, "yes")
    assert second.offered == "where the processor multiplies it, and this one did not"
    assert third == Form("int8", 0.7, 0.6, 0.99, 0.05, "yes")


def test_a_form_that_is_not_offered_says_why() -> None:
    *_, int8 = forms({"float32": SAME, "int8": {"accepted": False, "reason": "it was not asked for"}}, {})
    assert int8 == Form("int8", None, None, None, None, "no: it was not asked for")


def test_other_runtimes_forms_are_named_as_what_they_are() -> None:
    names = [one.name for one in forms({"float32": SAME, "onnx": SAME, "pt2": SAME}, {"bfloat16": {"accuracy": 1.0}})]
    assert names == ["float32", "bfloat16", "float32, ONNX", "float32, torch.export"]


def test_an_artifact_from_before_exports_offers_float32() -> None:
    assert [(one.name, one.offered) for one in forms({}, {"float32": {}, "bfloat16": {}})] == [
        ("float32", "yes"),
        ("bfloat16", "where the processor multiplies it"),
    ]
