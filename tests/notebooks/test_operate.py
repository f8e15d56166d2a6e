"""The whole notebook, run as Jupyter runs it, against a rehearsal that is kept up."""

import base64
import os
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.conftest import KeptRehearsal

pytestmark = [pytest.mark.long, pytest.mark.torch]

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "operate.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    assert [
        cell for cell in notebook.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)
    ] == []


def test_the_notebook_runs_from_the_data_set_to_the_lambdas_answer(
    kept_rehearsal: KeptRehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in kept_rehearsal.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    client = nbclient.NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    said = "".join(
        output.get("text", "") or str(output.get("data", {}).get("text/html", ""))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    for step in ("Prepare", "Train", "Evaluate", "Gate", "Register"):
        assert f"{step}: Succeeded" in said
    assert "epoch=1 train_loss=" in said
    assert said.count("<td>Succeeded</td>") == 2  # the rehearsal's run and the notebook's
    assert "<td>approval</td><td>Approved</td>" in said
    assert "kennel-dev InService" in said
    assert "endpoint: " in said
    pictures = [
        base64.b64decode(output["data"]["image/png"])
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 4  # the data set, the runs, the model's answers, the Lambda's answer
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
