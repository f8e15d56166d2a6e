"""What one run shows of itself, on a terminal and off one."""

import io
import re

import pytest
from rich.console import Console

from kennel.board import Board
from kennel.lines import metrics_of, printable

EPOCH = "epoch=3 train_loss=0.123456 valid_loss=0.234567 valid_accuracy=0.971234 images_per_second=512.3"


def board(*, terminal: bool = False) -> tuple[Board, io.StringIO]:
    out = io.StringIO()
    return Board(Console(file=out, force_terminal=terminal, width=80, highlight=False)), out


def test_off_a_terminal_there_are_plain_lines() -> None:
    shown, out = board()
    with shown:
        shown.step("Train", "running")
        shown.step("Train", "running")
        shown.line("model=resnet18")
        shown.line(EPOCH, job="algo-2")
        shown.cost("Cost so far: $1.00")
        shown.step("Train", "failed", 3.25, "no images")
    assert out.getvalue().splitlines() == [
        "Train ...",
        "  model=resnet18",
        "  algo-2 epoch 3  train loss 0.1235  valid loss 0.2346  valid accuracy 0.9712  images per second 512",
        "✗ Train 3.2 s: no images",
    ]


def test_on_a_terminal_metrics_are_a_table_of_80_columns_below_the_log() -> None:
    shown, out = board(terminal=True)
    with shown:
        shown.step("Prepare", "done", 61.0)
        shown.step("Train", "running", 5.0)
        shown.line("model=resnet18")
        for epoch in range(1, 21):
            shown.line(EPOCH.replace("epoch=3", f"epoch={epoch}"), job="trial 1")
        shown.cost("Cost so far: $0.12")
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).split("model=resnet18")[-1]
    assert "▸ Train" in last
    assert "✓ Prepare     61.0 s" in last
    assert re.search(r"job +epoch +train loss +valid loss +accuracy +images/s", last)
    assert "0.9712" in last
    assert "Cost so far: $0.12" in last
    assert re.search(r"^trial 1 +20 ", last, re.MULTILINE)
    assert not re.search(r"^trial 1 +8 ", last, re.MULTILINE)  # twelve rows are enough
    assert max(map(len, last.splitlines())) <= 80


def test_a_trial_of_head_mode_is_the_running_steps_detail() -> None:
    shown, _ = board(terminal=True)
    with shown:
        shown.step("Train", "running")
        shown.line("trial=3 of=50 trial_accuracy=0.97")
        assert shown.rows["Train"].detail == "trial 3  of 50  trial accuracy 0.9700"
    assert shown.epochs == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (EPOCH, {"epoch": 3, "valid_accuracy": 0.971234}),
        ("epoch=1 train_loss=nan", {"epoch": 1}),
        ("trial=2 of=8 trial_accuracy=1e-3", {"trial": 2, "of": 8, "trial_accuracy": 0.001}),
        ("test_accuracy=0.5", {}),
        ("the epoch=1 was good", {}),
        ("epoch=1 version=1.2.3", {"epoch": 1}),
    ],
)
def test_a_metric_line_is_read_and_any_other_is_words(line: str, found: dict[str, float]) -> None:
    read = metrics_of(line)
    assert {name: read.get(name) for name in found} == found
    assert bool(read) == bool(found)
    assert "version" not in read


def test_what_could_steer_a_terminal_does_not_get_there() -> None:
    assert printable("a\x1b[2Jb\x07c\td é\n") == "a [2Jb c d é"
