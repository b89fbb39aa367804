"""What child processes import, and what they inherit."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trtjob
from trtjob.child_environment import environment, python
from trtjob.child_process import said, started
from trtjob.worker.pipeline.prestart import end_process, shared_memory, start_process

PACKAGE = Path(trtjob.__file__).parent
STARTS = {"subprocess.Popen", "subprocess.run", "asyncio.create_subprocess_exec"}


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is made when a module of the current folder is imported: it has those that every Python imports."""
    mark = tmp_path / "imported"
    here = tmp_path / "here"
    here.mkdir()
    for name in ("fractions", "json", "typing", "logging", "re", "numpy", "trtjob"):
        (here / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    monkeypatch.chdir(here)
    return mark


def test_a_process_apart_imports_nothing_from_the_current_folder(mark: Path) -> None:
    config: dict[str, Any] = {"request": {"model": "/none"}, "models_dir": "/none", "log_level": "ERROR"}
    with started("trtjob.converters.process", config) as (_, stream):
        assert "no model file" in next(news for news in said(stream) if news)["message"]
    assert not mark.exists()


def test_an_image_process_imports_nothing_from_the_current_folder(mark: Path) -> None:
    ring = shared_memory()
    image_process = start_process(ring)
    assert image_process.process.pid, "it is there, and all is imported"
    end_process(image_process)
    os.close(ring)
    assert not mark.exists()


def test_no_process_looks_for_plugins_of_pydantics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are other packages', and to look takes as long as some commands have to do."""
    folder = tmp_path / "packages" / "plugin-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[pydantic]\nplugin = a_plugin:plugin\n")
    (folder.parent / "a_plugin.py").write_text(
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\n"
        "class plugin:\n    new_schema_validator = staticmethod(lambda *_: (None, None, None))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    subprocess.run(python("-c", "import trtjob.config"), env=environment(), capture_output=True, check=True)
    assert not (tmp_path / "imported").exists(), "a child"
    subprocess.run(python("-m", "trtjob", "models"), capture_output=True, check=True)
    assert not (tmp_path / "imported").exists(), "a command"
    subprocess.run(python("-c", "import trtjob.config"), capture_output=True, check=True)
    assert (tmp_path / "imported").exists(), "a program that uses trtjob has its own way"


def starts() -> Iterator[tuple[str, ast.Call]]:
    """Yield each place in the package where a process is started."""
    for path in PACKAGE.rglob("*.py"):
        if "subprocess" not in (text := path.read_text()):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in STARTS:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


@pytest.mark.slow
def test_every_child_that_is_python_is_called_in_the_one_way() -> None:
    assert [place for place, call in starts() if "sys.executable" in ast.unparse(call)] == []
    assert sum("python(" in ast.unparse(call) for _, call in starts()) == 5


@pytest.mark.slow
def test_every_child_has_what_it_needs_alone() -> None:
    given = {place: {each.arg: ast.unparse(each.value) for each in call.keywords} for place, call in starts()}
    assert [place for place, how in given.items() if not how.get("env", "").startswith("environment(")] == []


@pytest.mark.parametrize(
    "name",
    [
        "TRTJOB_NOTIFY_SECRET",
        "TRTJOB_REDIS_URL",
        "GITHUB_TOKEN",
        "PGPASSWORD",
        "OPENAI_API_KEY",
        "REDISCLI_AUTH",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ],
)
def test_a_secret_is_not_inherited(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "a-secret")
    shown = subprocess.run(
        python("-c", "import os; print(os.environ)"), env=environment(), capture_output=True, text=True, check=True
    ).stdout
    assert "a-secret" not in shown


@pytest.mark.parametrize("name", ["PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "TRTJOB_CONFIG", "HTTPS_PROXY"])
def test_what_leads_to_libraries_and_networks_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/somewhere")
    assert environment()[name] == "/somewhere"


def test_who_works_with_buckets_finds_them_and_knows_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "TRTJOB_NOTIFY_SECRET"):
        monkeypatch.setenv(name, "a-secret")
    inherited = environment({"OMP_NUM_THREADS": "1"}, buckets=True)
    assert inherited["AWS_SECRET_ACCESS_KEY"] == "a-secret"
    assert "TRTJOB_NOTIFY_SECRET" not in inherited
    assert inherited["OMP_NUM_THREADS"] == "1"
    assert os.environ["TRTJOB_NOTIFY_SECRET"] == "a-secret"


def test_the_call_is_of_this_python() -> None:
    assert python("-m", "trtjob")[0] == sys.executable
