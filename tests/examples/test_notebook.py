"""The example's notebook runs in a kernel, whose event loop runs already, and shows what it says."""

import shutil
from pathlib import Path

import pytest
from terminal import DIGITS


@pytest.mark.slow
@pytest.mark.extra
def test_the_notebook_runs_and_shows_progress_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    for name in ("scenes", "digits.weights", "digits.cfg", "digits.names"):
        copy = shutil.copytree if (DIGITS / name).is_dir() else shutil.copy
        copy(DIGITS / name, tmp_path / name)
    monkeypatch.setenv("TRTJOB_HOME", str(tmp_path / "home"))
    notebook = nbformat.read(DIGITS / "digits.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    tables = [output["data"]["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert any("demo-output" in table and "12 images, 0 failed" in table for table in tables)
    assert any("day/0000.jpg: 16 found" in table for table in tables)
    assert not [output for output in shown if output.output_type == "error"]
    updates = [output for output in shown if output.output_type == "display_data"]
    assert updates, "the progress is a display of its own"
