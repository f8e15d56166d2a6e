"""Many settings on the same features: how they are chosen, ranked, logged and kept."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.training.train.jobs import StopAfter, head_context, weights_of, write_head_job  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.hyperparameters import Hyperparameters  # noqa: E402
from training.metrics import METRIC_DEFINITIONS  # noqa: E402
from training.train.head import search  # noqa: E402
from training.train.head.fit import TrainedHead  # noqa: E402
from training.train.head.search import TUNED, Found, _try, trial_settings  # noqa: E402
from training.train.head.train import train_head  # noqa: E402

GIVEN = Hyperparameters(trials=200, views=3, learning_rate=0.003)


@pytest.fixture
def root(tmp_path: Path, tiny_network: None) -> Path:
    return write_head_job(tmp_path / "ml")


def _train(root: Path, stop: Any = None, **settings: Any) -> Any:
    return train_head(head_context(root, **{"trials": 6, "views": 1, "epochs": 2, **settings}), stop or StopAfter())


def _ranked(monkeypatch: pytest.MonkeyPatch, results: list[tuple[float | None, float]]) -> None:
    """Let trials end so, whatever they learn; an accuracy of None: the loss became infinite."""

    def tried(number: int, fit: Any, settings: Hyperparameters, halted: Callable[[], bool]) -> Any:
        outcome = _try(number, fit, settings, halted)
        assert outcome
        accuracy, loss = results[number - 1]
        found = {"accuracy": accuracy, "loss": None if accuracy is None else loss}
        return outcome[0] | found, None if accuracy is None else outcome[1]

    monkeypatch.setattr(search, "_try", tried)


def _some_never_end(number: int, fit: Any, settings: Hyperparameters, halted: Callable[[], bool]) -> Any:
    """Let only the first five trials end before the search is stopped, however fast the machine is."""
    while number > 5 and not halted():
        time.sleep(0.01)
    return _try(number, fit, settings, halted)


def test_the_first_trial_is_what_was_given_and_the_others_fill_the_space() -> None:
    tried = [trial_settings(number, GIVEN, 7000) for number in range(1, 201)]
    assert tried[0] == GIVEN
    assert len({(one.learning_rate, one.weight_decay) for one in tried}) == 200
    for one in tried[1:]:
        assert 0.0003 <= one.learning_rate <= 0.006
        assert 0.3 <= one.weight_decay <= 30
        assert 0 <= one.label_smoothing <= 0.1
        assert 32 <= one.batch_size <= 256
        assert replace(one, **{name: getattr(GIVEN, name) for name in TUNED}) == GIVEN
    for name, middle in (("learning_rate", 0.00134), ("weight_decay", 3.0), ("label_smoothing", 0.05)):
        below = sum(getattr(one, name) < middle for one in tried[1:])
        assert 95 <= below <= 105, name
    views = [one.views for one in tried[1:]]
    assert all(45 <= views.count(number) <= 55 for number in range(4))


def test_the_settings_follow_the_seed_and_fit_small_splits() -> None:
    assert trial_settings(5, GIVEN, 7000) == trial_settings(5, GIVEN, 7000)
    assert trial_settings(5, replace(GIVEN, seed=1), 7000) != trial_settings(5, GIVEN, 7000)
    assert (
        trial_settings(5, replace(GIVEN, trials=9), 7000).learning_rate == trial_settings(5, GIVEN, 7000).learning_rate
    )
    assert all(1 <= trial_settings(number, GIVEN, 3).batch_size <= 3 for number in range(2, 20))
    assert trial_settings(9, replace(GIVEN, learning_rate=10), 9).learning_rate <= 10


def test_each_trial_is_logged_and_recorded_and_the_best_heads_are_averaged(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = _train(root)
    output = capsys.readouterr().out.splitlines()
    logged = [line for line in output if line.startswith("trial=")]
    assert len(logged) == len(trained.trials) == 6
    logged.sort()  # they end in any order
    for number, (line, trial) in enumerate(zip(logged, trained.trials, strict=True), 1):
        assert line.startswith(f"trial={number} of=6 trial_accuracy={trial['accuracy']:.6f} trial_loss=")
        assert f"learning_rate={trial['learning_rate']} " in line
    best = min(trained.trials, key=lambda trial: trial["loss"])
    assert {name: getattr(trained.settings, name) for name in TUNED} == {name: best[name] for name in TUNED}
    assert best["accuracy"] in [row["valid_accuracy"] for row in trained.history]
    assert [line.split()[0] for line in output if line.startswith("epoch=")] == ["epoch=1", "epoch=2"]
    (head,) = (line for line in output if line.startswith("head "))
    assert head.startswith("head of=4 best_epoch=")
    assert f" valid_accuracy={trained.metrics['valid_accuracy']:.6f} " in head
    labels = head_context(root).labels()[1]
    assert trained.metrics["valid_loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(trained.logits, labels).item()
    )


@pytest.mark.parametrize(("trials", "count"), [(0, search.DEFAULT_TRIALS), (1, 0), (3, 3)])
def test_a_search_is_the_default_and_one_trial_is_none(
    trials: int, count: int, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = _train(root, trials=trials)
    assert len(trained.trials) == count
    given = head_context(root, trials=trials, views=1, epochs=2).settings
    assert count or trained.settings == given
    assert (f"head of={min(4, max(1, count))} " in capsys.readouterr().out) is True


def test_the_mean_of_heads_answers_with_the_mean_of_their_logits() -> None:
    heads = []
    for temperature in (0.5, 2.0):
        head = torch.nn.Linear(3, 2)
        heads.append(TrainedHead(head, torch.empty(0, 2), 1.0, temperature, 1, []))
    rows = torch.randn(5, 3)
    expected = (heads[0].head(rows) / 0.5 + heads[1].head(rows) / 2.0) / 2
    torch.testing.assert_close(Found(heads, GIVEN, []).average()(rows), expected)
    assert Found(heads[:1], GIVEN, []).average() is heads[0].head


def test_no_metrics_expression_takes_a_trials_line_for_an_epochs(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    _train(root)
    logged = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("trial", "head", "features"))]
    for definition in METRIC_DEFINITIONS:
        name = definition["Name"]
        found = [line for line in logged if re.search(definition["Regex"], line)]
        final = name in ("valid_loss", "valid_accuracy") and all(line.startswith("head ") for line in found)
        assert not found or final or name == "images_per_second"


@pytest.mark.parametrize(
    ("results", "best"),
    [
        ([(0.5, 1.0), (0.7, 2.0), (0.6, 0.1)], 3),
        ([(0.5, 3.0), (0.7, 2.0), (0.7, 1.9)], 3),
        ([(0.5, 3.0), (0.7, 2.0), (0.6, 2.0)], 2),
        ([(None, 0.0), (0.0, 9.0), (None, 0.0)], 2),
    ],
)
def test_the_loss_decides_then_the_first(
    results: list[tuple[float | None, float]], best: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ranked(monkeypatch, results)
    trained = _train(root, trials=3)
    job = head_context(root, trials=3, views=1, epochs=2)
    assert trained.settings == trial_settings(best, job.settings, 20)


def test_a_search_in_which_nothing_ends_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _ranked(monkeypatch, [(None, 0.0)] * 2)
    with pytest.raises(TrainingError, match="In every trial the loss became infinite"):
        _train(root, trials=2)


def test_a_trial_that_runs_away_is_a_bad_one_and_no_failure(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = _train(root, trials=6, learning_rate=1.0, epochs=40, weight_decay=100.0)
    assert len(trained.trials) == 6
    assert trained.trials[0]["loss"] is None
    assert any(trial["loss"] is not None for trial in trained.trials)
    assert "trial=1 of=6 trial_accuracy=nan trial_loss=nan " in capsys.readouterr().out


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_a_stopped_search_goes_on_where_it_was(
    looks: int, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole = _train(root, trials=30)
    for file in (root / "checkpoints").glob("*/trials.txt"):
        file.unlink()
    stop = StopAfter(looks)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(search, "_try", _some_never_end)
        assert _train(root, stop, trials=30) is None
    output = capsys.readouterr().out
    assert "stopped by SIGTERM while the head was trained; its progress is written" in output
    done = output.count("trial=")
    assert done <= 5
    again = _train(root, trials=30)
    output = capsys.readouterr().out
    assert f"trials reused={done}" in output or not done
    assert output.count("trial=") == 30 - done
    assert weights_of(again) == weights_of(whole)
    assert again.trials == whole.trials


def test_trials_do_not_depend_on_how_many_run_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several = _train(root)
    for file in (root / "checkpoints").glob("*/trials.txt"):
        file.unlink()
    monkeypatch.setattr(search, "cores", lambda: 1)
    assert _train(root).trials == several.trials


def test_a_longer_search_begins_with_the_shorter_ones_trials(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = _train(root, trials=3)
    capsys.readouterr()
    assert _train(root, trials=5).trials[:3] == short.trials
    assert "trials reused=3" in capsys.readouterr().out


@pytest.mark.parametrize("changed", [{"epochs": 3}, {"seed": 1}, {"learning_rate": 0.1}])
def test_other_settings_are_other_trials(
    changed: dict[str, Any], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _train(root, trials=2)
    capsys.readouterr()
    _train(root, trials=2, **changed)
    assert "trials reused" not in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["torn", "flipped"])
def test_a_damaged_trial_is_logged_and_tried_again(damage: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = _train(root, trials=3)
    file = next((root / "checkpoints").glob("*/trials.txt"))
    text = file.read_bytes()
    file.write_bytes(text[:-20] if damage == "torn" else text.replace(b'"trial": 3', b'"trial": 4'))
    capsys.readouterr()
    assert _train(root, trials=3).trials == whole.trials
    output = capsys.readouterr().out
    assert "are damaged and tried again" in output
    assert "trials reused=2" in output
    assert _train(root, trials=3).trials == whole.trials
