"""The drift job: captured requests by day against what the exported network said of the test split.

It writes drift.json and drift.html. Inputs: `model` (model.tar.gz), `evaluation` (drift-reference.npz), `capture`
(captured lines) and, where there are any, `labels` (ground-truth lines).
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import tee
from pathlib import Path
from typing import Any

from training.drift.capture import Captured, Request, read_labels
from training.drift.compare import LEAST, Comparison
from training.drift.observe import Observations, observe, read_reference
from training.drift.page import render
from training.errors import TrainingError
from training.evaluate import artifact
from training.evaluate.scores import interval
from training.paths import Paths

_SHOWN = 12  # photos
_MOST = 5000  # photos of a window: more tell nothing new, and each takes memory


@dataclass(frozen=True)
class Options:
    """`accuracy_threshold` is the gate's: an estimate below it is a breach. `expected_lines` 0: nobody counted them."""

    accuracy_threshold: float = 0.0
    expected_lines: int = 0


@dataclass
class Window:
    """The requests of one day, or of as many days as it takes to have LEAST of them."""

    days: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    parts: list[Observations] = field(default_factory=list)

    def seen(self) -> Observations:
        return Observations.join(self.parts)


def drift(paths: Paths, options: Options) -> None:
    """Compare; raise TrainingError with one sentence where model, reference or captured requests cannot be used."""
    captured = Captured(paths.processing_input("capture"))
    with tempfile.TemporaryDirectory() as folder:
        artifact.unpack(paths.processing_input("model") / "model.tar.gz", Path(folder))
        model = artifact.load(Path(folder))
        reference = read_reference(paths.processing_input("evaluation"), len(model.classes))
        windows = _windows(model, captured)
    if not windows:
        raise TrainingError(_nothing(captured))
    gate = options.accuracy_threshold
    comparison = Comparison(
        reference, model.classes, threshold=model.threshold, known_threshold=model.known_threshold, gate=gate
    )
    results = [{"days": window.days, **comparison.window(window.seen())} for window in windows]
    order, auc = comparison.moved_most(windows[-1].seen())
    report = {
        "format": 1,
        "alarm": [one["breach"] for one in results[-2:]] == [True, True],
        "windows": results,
        "auc": auc,
        "labelled": _labelled(windows, read_labels(paths.processing_input("labels")), model.classes),
        "lines": {"read": captured.lines, "expected": options.expected_lines, "skipped": dict(captured.skipped)},
    }
    _write(paths.processing_output("drift"), report, [windows[-1].requests[index] for index in order[:_SHOWN]])


def _nothing(captured: Captured) -> str:
    why = ", ".join(f"{count} x {reason}" for reason, count in captured.skipped.items())
    said = f"{captured.lines} lines were read ({why})" if captured.lines else "there is no line in any .jsonl file"
    return f"{captured.folder} holds no captured photo: {said}. Is data capture on (hosting.capture_percent)?"


def _windows(model: artifact.Model, captured: Captured) -> list[Window]:
    """Return the windows, oldest first; photos that cannot be decoded are counted as skipped."""
    windows: list[Window] = []
    for request, seen in _observed(model, captured):
        last = windows[-1] if windows else None
        if last is None or (request.day not in last.days and len(last.requests) >= LEAST):
            last = Window()
            windows.append(last)
        if request.day not in last.days:
            last.days.append(request.day)
        if len(last.requests) >= _MOST:
            captured.skipped[f"beyond {_MOST:,} of a window"] += 1
            continue
        # Without the bytes: there may be many photos, and few are shown.
        last.requests.append(Request(request.id, request.day, b"", request.file, request.offset))
        last.parts.append(seen)
    return windows


def _observed(model: artifact.Model, captured: Captured) -> Iterator[tuple[Request, Observations]]:
    requests, images = tee(captured)
    for request, seen in zip(requests, observe(model, (one.image for one in images)), strict=True):
        if seen is None:
            captured.skipped["photo cannot be decoded"] += 1
        else:
            yield request, seen


def _labelled(windows: Sequence[Window], labels: Mapping[str, str], classes: Sequence[str]) -> dict[str, Any]:
    """Return what the labels of people say: how many requests have one, and the accuracy with Wilson's interval."""
    pairs = [
        (labels[request.id], classes[int(seen.predicted[0])])
        for window in windows
        for request, seen in zip(window.requests, window.parts, strict=True)
        if request.id in labels
    ]
    hits, of = sum(label == predicted for label, predicted in pairs), len(pairs)
    asked = sum(len(window.requests) for window in windows)
    lower, upper = interval(hits, of)
    return {
        "requests": of,
        "share": of / asked,
        "accuracy": hits / of if of else None,
        "lower": lower,
        "upper": upper,
    }


def _write(output: Path, report: Mapping[str, Any], shown: Sequence[Request]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "drift.html").write_text(render(report, shown), encoding="utf-8", errors="replace")
    # Written last: where drift.json is, the page is too.
    (output / "drift.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    last = report["windows"][-1]
    said = ", ".join(last["moved"]) or ("nothing moved" if last["tested"] else "too few requests to tell")
    print(f"drift_alarm={int(report['alarm'])} requests={last['requests']} moved: {said}", flush=True)
