"""What the display shows, on a terminal and off one."""

import io
import re

import pytest
from rich.console import Console

from kennel.console import Display
from kennel.pipeline_steps import metrics_of, printable

EPOCH = "epoch=3 train_loss=0.123456 valid_loss=0.234567 valid_accuracy=0.971234 images_per_second=512.3"


def display(*, terminal: bool = False) -> tuple[Display, io.StringIO]:
    out = io.StringIO()
    return Display(Console(file=out, force_terminal=terminal, width=80, height=40, highlight=False)), out


def last_frame(out: io.StringIO, after: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).split(after)[-1]


def test_off_a_terminal_each_step_has_a_line_at_its_start_and_its_end() -> None:
    shown, out = display()
    with shown, shown.step("Deploy") as step:
        with shown.step("Data"):
            shown.log("word for word: [bold]not markup[/] " + "x" * 100)
        step.detail = "5 stacks"
    text = re.sub(r"\d+\.\d s", "0.0 s", out.getvalue())
    assert text.splitlines() == [
        "Deploy ...",
        "  Data ...",
        "    word for word: [bold]not markup[/] " + "x" * 100,
        "  ✓ Data 0.0 s",
        "✓ Deploy 0.0 s: 5 stacks",
    ]
    assert "\x1b" not in text


def test_off_a_terminal_the_lines_of_a_job_are_indented_and_metrics_are_spelt_out() -> None:
    shown, out = display()
    with shown:
        train = shown.begin("Train")
        shown.line("model=resnet18")
        shown.line(EPOCH, job="algo-2")
        shown.footer("Cost so far: $1.00")
        shown.end(train, "failed", "no images", 3.25)
    assert out.getvalue().splitlines() == [
        "Train ...",
        "  model=resnet18",
        "  algo-2 epoch 3  train loss 0.1235  valid loss 0.2346  valid accuracy 0.9712  images per second 512",
        "✗ Train 3.2 s: no images",
    ]


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [(ValueError("no images\nand more"), "failed", "no images"), (KeyboardInterrupt(), "stopped", "")],
)
def test_a_step_that_raises_is_shown_as_failed_with_its_first_line_and_one_interrupted_as_stopped(
    error: BaseException, status: str, detail: str
) -> None:
    shown, _ = display()
    with pytest.raises(type(error)), shown, shown.step("Prepare"):
        raise error
    assert (shown.steps[0].status, shown.steps[0].detail) == (status, detail)


def test_steps_remember_when_they_began_how_long_they_took_and_how_deep_they_lie() -> None:
    shown, _ = display()
    with shown, shown.step("Pipeline"):
        shown.end(shown.begin("Train", seconds=5.0), "done", seconds=7.0)
        with shown.step("Evaluate"):
            pass
    outer, train, evaluate = shown.steps
    assert [step.depth for step in shown.steps] == [0, 1, 1]
    assert (train.seconds, train.started < outer.started) == (7.0, True)
    assert outer.started <= evaluate.started
    assert evaluate.started + evaluate.seconds <= outer.started + outer.seconds


def test_on_a_terminal_metrics_are_a_table_of_80_columns_below_the_steps() -> None:
    shown, out = display(terminal=True)
    with shown:
        shown.end(shown.begin("Prepare"), "done", seconds=61.0)
        shown.begin("Train", seconds=5.0)
        shown.line("model=resnet18")
        for epoch in range(1, 21):
            shown.line(EPOCH.replace("epoch=3", f"epoch={epoch}"), job="trial 1")
        shown.footer("Cost so far: $0.12")
    last = last_frame(out, "model=resnet18")
    assert re.search(r"▸ Train +━+ +5\.\d s", last)
    assert re.search(r"✓ Prepare +61\.0 s", last)
    assert re.search(r"job +epoch +train loss +valid loss +accuracy +images/s", last)
    assert "Cost so far: $0.12" in last
    assert re.search(r"^trial 1 +20 ", last, re.MULTILINE)
    assert not re.search(r"^trial 1 +8 ", last, re.MULTILINE)  # twelve rows are enough
    assert max(map(len, last.splitlines())) <= 80


def test_on_a_terminal_a_bar_follows_the_progress_and_hostile_names_stay_text() -> None:
    shown, out = display(terminal=True)
    with shown:
        shown.begin("[red]Train[/nonsense]")
        shown.advance(0.5)
    assert re.search(r"▸ \[red\]Train\[/nonsense\] +━+╺━+ +0\.0 s", last_frame(out, "nothing"))
    assert "Train[/nonsense] ..." not in out.getvalue()


def test_a_trial_within_a_job_is_the_running_steps_detail() -> None:
    shown, _ = display(terminal=True)
    with shown, shown.step("Train") as step:
        shown.line("trial=3 of=50 trial_accuracy=0.97")
        assert step.detail == "trial 3  of 50  trial accuracy 0.9700"
    assert shown.epochs == []


def test_metrics_and_progress_outside_of_a_step_do_no_harm() -> None:
    shown, out = display()
    with shown:
        shown.advance(0.5)
        shown.line("epoch=1 loss=nan")
    assert out.getvalue() == "epoch 1  loss nan\n"


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
