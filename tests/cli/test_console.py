"""The display of a rehearsal, on a terminal and off one."""

import io
import re

import pytest
from rich.console import Console

from kennel.console import Display


def display(*, terminal: bool = False) -> tuple[Display, io.StringIO]:
    out = io.StringIO()
    return Display(Console(file=out, force_terminal=terminal, width=120)), out


def test_off_a_terminal_each_step_has_a_line_at_its_start_and_its_end() -> None:
    shown, out = display()
    with shown, shown.step("Deploy") as step:
        with shown.step("Data"):
            pass
        step.detail = "5 stacks"
    text = re.sub(r"\d+\.\d s", "0.0 s", out.getvalue())
    assert text.splitlines() == ["Deploy ...", "  Data ...", "  ✓ Data 0.0 s", "✓ Deploy 0.0 s: 5 stacks"]
    assert "\x1b" not in text


def test_a_step_that_raises_is_shown_as_failed_with_the_first_line_of_the_reason() -> None:
    shown, out = display()
    with pytest.raises(ValueError, match="no images"), shown, shown.step("Prepare"):
        raise ValueError("no images\nand more")
    assert "✗ Prepare" in out.getvalue()
    assert (shown.steps[0].status, shown.steps[0].detail) == ("failed", "no images")


def test_steps_remember_when_they_began_how_long_they_took_and_how_deep_they_lie() -> None:
    shown, _ = display()
    with shown, shown.step("Pipeline"), shown.step("Train"):
        pass
    outer, inner = shown.steps
    assert (outer.name, outer.depth, inner.name, inner.depth) == ("Pipeline", 0, "Train", 1)
    assert 0 <= outer.started <= inner.started
    assert inner.started + inner.seconds <= outer.started + outer.seconds


def test_a_metric_becomes_the_running_steps_detail() -> None:
    shown, out = display()
    with shown, shown.step("Train") as step:
        shown.metric({"epoch": 3, "valid_accuracy": 0.97123})
        assert step.detail == "epoch 3  valid accuracy 0.9712"
    assert "  epoch 3  valid accuracy 0.9712\n" in out.getvalue()


def test_a_log_line_is_printed_word_for_word() -> None:
    shown, out = display()
    with shown:
        shown.log("[bold]not markup[/] :dog: " + "x" * 200)
    assert out.getvalue() == "[bold]not markup[/] :dog: " + "x" * 200 + "\n"


def test_on_a_terminal_there_are_bars_and_hostile_names_stay_text() -> None:
    shown, out = display(terminal=True)
    with shown, shown.step("[red]Train[/nonsense]"):
        shown.advance(0.5)
    assert "[red]Train[/nonsense]" in out.getvalue()
    assert "━" in out.getvalue()
    assert "Train[/nonsense] ..." not in out.getvalue()


def test_metrics_and_progress_outside_of_a_step_do_no_harm() -> None:
    shown, out = display()
    with shown:
        shown.advance(0.5)
        shown.metric({"loss": float("nan")})
    assert "loss nan" in out.getvalue()
