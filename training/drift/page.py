"""The drift report: one HTML file that names what moved and shows the photos that moved most."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.drift.capture import Request, read_image
from training.evaluate.page import data_uri, share
from training.transform import open_rgb


def render(report: Mapping[str, Any], shown: Sequence[Request]) -> str:
    """Return the page; `shown` are the photos that look least like the reference. Names are escaped."""
    folders = [Path(__file__).parent, Path(__file__).parents[1] / "evaluate"]  # the second one has the style
    environment = Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(share=share, p=_p_value)
    pictures = [(request.id, data_uri(open_rgb(read_image(request.file, request.offset)))) for request in shown]
    return environment.get_template("drift.html.j2").render(
        report=report, last=report["windows"][-1], before=report["windows"][:-1][-30:], pictures=pictures
    )


def _p_value(value: float) -> str:
    return "below 0.0001" if value < 0.0001 else f"{value:.2g}"
