"""Jobs of Python programs: the same as the command line's."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import DIGITS, Terminal

import trtjob

SCRIPT = """
import json, sys
import trtjob

job = trtjob.run({source!r}, model={model!r}, output="out", progress=False)
with trtjob.load({model!r}, progress=False) as model:
    for result in job.results():
        again = json.loads(model.predict({source!r} + "/" + result.image).to_json())
        assert json.dumps({{**again, "image": result.image}}, ensure_ascii=False) == result.to_json()
print(json.dumps([job.id, job.status().state, job.folder]))
"""


def test_importing_it_loads_nothing(tmp_path: Path) -> None:
    code = "import sys; before = set(sys.modules); import trtjob; print(sorted(set(sys.modules) - before))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert said.stdout.strip() == "['trtjob']"


def test_its_names_are_there() -> None:
    assert set(dir(trtjob)) == set(trtjob.__all__)
    assert all(getattr(trtjob, name) is not None for name in trtjob.__all__)


def test_a_signature_shows_every_option() -> None:

    assert {"source", "model", "conf", "classes", "threads", "progress"} <= set(
        inspect.signature(trtjob.run).parameters
    )


@pytest.mark.slow
def test_a_script_without_a_main_guard_runs_a_job_which_the_command_line_knows(tmp_path: Path) -> None:
    source, model = str(DIGITS / "scenes" / "night"), str(DIGITS / "digits.weights")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(source=source, model=model))
    terminal = Terminal(tmp_path / "home")
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "TRTJOB_HOME": str(terminal.home)},
    )
    assert done.returncode == 0, done.stderr
    job_id, state, folder = json.loads(done.stdout)
    assert state == "done"
    assert done.stderr == ""
    assert json.loads(terminal.run("status", job_id, "--json").out)["jobs"][0]["state"] == "done"
    assert folder == str(tmp_path / "out" / job_id)
