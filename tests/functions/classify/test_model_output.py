"""What the model's answer may be to be believed, and which label it comes to."""

from typing import Any

import pytest

from tests.functions.fakes import IMAGE, Endpoint, Reply, ask


def good(**more: Any) -> dict[str, Any]:
    return {"probabilities": [0.25, 0.75], "classes": ["cat", "dog"], "model": ""} | more


@pytest.mark.parametrize("model", [{"model": ""}, {"model": None}])
def test_a_model_without_a_name_is_empty(endpoint: Endpoint, model: dict[str, Any]) -> None:
    endpoint.replies = [Reply(200, good(**model))]
    assert ask()["model"] == ""


@pytest.mark.parametrize(
    ("threshold", "label"), [(None, "dog"), (0, "dog"), (0.5, "dog"), (0.75, "dog"), (0.750001, None), (1, None)]
)
def test_below_the_threshold_it_is_not_sure(endpoint: Endpoint, threshold: float | None, label: str | None) -> None:
    endpoint.replies = [Reply(200, good(threshold=threshold))]
    answer = ask(IMAGE | {"top_k": 1})
    assert (answer["label"], answer["threshold"]) == (label, threshold)
    assert answer["verdict"] == ("class" if label else "not_sure")
    assert answer["predictions"] == [{"label": "dog", "probability": 0.75}]


def resemblance(score: Any = 0.6, threshold: Any = 0.5, is_known: Any = True) -> dict[str, Any]:
    return {"score": score, "threshold": threshold, "is_known": is_known}


@pytest.mark.parametrize("threshold", [None, 1])
def test_a_picture_that_is_not_known_is_none_of_these_however_sure_the_model_is(
    endpoint: Endpoint, threshold: float | None
) -> None:
    known = resemblance(score=0.4, is_known=False)
    endpoint.replies = [Reply(200, good(threshold=threshold, known=known | {"later": 1}))]
    answer = ask()
    assert (answer["label"], answer["verdict"], answer["known"]) == (None, "none_of_these", known)
    assert answer["predictions"][0]["label"] == "dog"


def test_a_picture_that_is_known_has_the_class_or_none_by_its_probability(endpoint: Endpoint) -> None:
    endpoint.replies = [Reply(200, good(threshold=one, known=resemblance())) for one in (0.7, 0.8)]
    assert [ask()["verdict"] for _ in range(2)] == ["class", "not_sure"]


def test_of_two_best_classes_the_label_is_the_one_that_is_listed_first(endpoint: Endpoint) -> None:
    endpoint.replies = [Reply(200, good(probabilities=[0.5, 0.5], threshold=0.5))]
    answer = ask()
    assert answer["label"] == answer["predictions"][0]["label"] == "cat"


def test_an_endpoint_of_an_older_release_has_no_threshold(endpoint: Endpoint) -> None:
    assert "threshold" not in good()
    endpoint.replies = [Reply(200, good())]
    answer = ask()
    assert (answer["label"], answer["threshold"]) == ("dog", None)
    assert (answer["verdict"], answer["known"]) == ("class", None)


def test_any_status_of_success_is_one(endpoint: Endpoint) -> None:
    endpoint.replies = [Reply(201, good())]
    assert ask()["label"] == "dog"


@pytest.mark.parametrize("values", [[0.2501, 0.75], [1.0, 0.0], [1, 0], [0.249, 0.75]])
def test_probabilities_may_be_rounded(endpoint: Endpoint, values: list[float]) -> None:
    endpoint.replies = [Reply(200, good(probabilities=values))]
    assert ask()["probabilities"] == values


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"[" * 100_000,
        [],
        {},
        "text",
        good(probabilities=None),
        good(probabilities=[]),
        good(probabilities=[1.0]),
        good(probabilities=[0.2, 0.3, 0.5]),
        good(probabilities=[0.5, float("nan")]),
        good(probabilities=[0.5, float("inf")]),
        good(probabilities=[-0.5, 1.5]),
        good(probabilities=[0.5, 0.6]),
        good(probabilities=[0.0, 0.0]),
        good(probabilities=[10**400, 0]),
        good(probabilities=["0.5", "0.5"]),
        good(probabilities=[True, False]),
        good(probabilities={"cat": 0.5, "dog": 0.5}),
        good(classes=None),
        good(classes=[]),
        good(classes=["cat"]),
        good(classes=["cat", "cat"]),
        good(classes=["cat", 7]),
        good(classes=["cat", []]),
        good(classes="ab"),
        good(model=7),
        good(threshold="0.5"),
        good(threshold=True),
        good(threshold=-0.1),
        good(threshold=1.01),
        good(threshold=10**400),
        good(threshold=float("nan")),
        good(threshold=[0.5]),
        good(threshold={"threshold": 0.5}),
        good(known={}),
        good(known=[]),
        good(known=True),
        good(known=0.5),
        good(known=resemblance(is_known=False)),
        good(known=resemblance(score=0.4)),
        good(known=resemblance(is_known=1)),
        good(known=resemblance(score=float("nan"), is_known=False)),
        good(known=resemblance(score=10**400)),
        good(known=resemblance(score="0.6")),
        good(known=resemblance(threshold=None)),
    ],
    ids=lambda body: str(body)[:40],
)
def test_an_answer_that_cannot_be_true_is_not_passed_on(endpoint: Endpoint, body: Any) -> None:
    endpoint.replies = [Reply(200, body)]
    error = ask()["error"]
    assert (error["code"], error["status"]) == ("bad_answer", 502)
    assert len(endpoint.calls) == 1


def test_the_servers_timings_are_passed_on_beside_our_own(endpoint: Endpoint) -> None:
    its = {"queue_ms": 0, "decode_ms": 4.25, "model_ms": 3.5}
    endpoint.replies = [Reply(200, good(timings=its | {"more": 1}))]
    timings = ask()["timings"]
    assert timings.pop("endpoint_ms") > 0
    assert timings == its


@pytest.mark.parametrize("timings", [None, [], "fast", {"queue_ms": "1"}, {"queue_ms": True}, {"queue_ms": -1}])
@pytest.mark.parametrize("odd", [{}, {"model_ms": float("nan")}, {"model_ms": 10**400}])
def test_timings_that_are_no_times_are_left_out_of_a_good_answer(
    endpoint: Endpoint, timings: Any, odd: dict[str, Any]
) -> None:
    endpoint.replies = [Reply(200, good(timings=timings | odd if isinstance(timings, dict) else timings))]
    answer = ask()
    assert answer["label"] == "dog"
    assert list(answer["timings"]) == ["endpoint_ms"]
