"""The examples in docstrings run, and say what comes of them."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest
from epochs import add_epoch, found, job_spec, write_records

import trtjob
from trtjob.jobs.folder import JOB, RESULTS, JobFolder

PACKAGE = Path(trtjob.__file__).parent
PYTHON_DOC = Path(__file__).parents[1] / "docs" / "python.md"
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text("utf-8")
)


@pytest.fixture
def _finished_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in a folder with a job's results, as `trtjob run` leaves them: examples read them and write beside them."""
    monkeypatch.chdir(tmp_path)
    records = [found("a.jpg", (1, 0.9, (10.0, 20.0, 110.0, 70.5))), found("b.jpg")]
    spec = job_spec(tmp_path / "results")
    folder = JobFolder.of(spec)
    folder.storage.make_root()
    folder.storage.write(JOB, spec.model_dump_json().encode())
    add_epoch(folder, records)
    write_records(Path(folder.uri) / RESULTS, records)


@pytest.mark.usefixtures("_finished_job")
@pytest.mark.skipif(not PYTHON_DOC.exists(), reason="the documentation is not at hand: there is no folder `docs`")
def test_the_examples_of_the_documentation_are_true() -> None:
    failed, tried = doctest.testfile(str(PYTHON_DOC), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert tried
    assert not failed


@pytest.mark.usefixtures("_finished_job")
@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name: str) -> None:
    failed, tried = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert tried
    assert not failed
