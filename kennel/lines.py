"""What a job's log lines say: a metric, or words for people."""

import re

_METRIC_LINE = re.compile(r"(epoch|trial)=\d+ ")
_PAIR = re.compile(r"(\w+)=([-+]?(?:[0-9.]+(?:e[-+]?\d+)?|nan|inf))(?=\s|$)", re.I)


def metrics_of(line: str) -> dict[str, float]:
    """The numbers of a line `epoch=3 train_loss=0.1 ...` or `trial=3 of=50 ...`; nothing for any other line."""
    if not _METRIC_LINE.match(line):
        return {}
    found = {}
    for name, text in _PAIR.findall(line):
        try:
            found[name] = float(text)
        except ValueError:
            continue  # 1.2.3 is no number
    return found


def printable(line: str) -> str:
    """The line without what could steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in line.rstrip())
