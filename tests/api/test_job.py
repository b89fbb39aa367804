"""Jobs of Python programs: the same as the command line's."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from terminal import DIGITS, Terminal

import trtjob
from trtjob.errors import ConfigError, JobError, WaitTimeoutError
from trtjob.queue.connection import Connection

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
    parameters = inspect.signature(trtjob.run).parameters
    assert {"conf", "classes", "threads", "progress"} <= set(parameters)
    in_order = [name for name, each in parameters.items() if each.kind is not each.KEYWORD_ONLY]
    assert in_order == ["source", "model", "output"]


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
    assert json.loads(terminal.here("status", job_id, "--json").out)["jobs"][0]["state"] == "done"
    assert folder == str(tmp_path / "out" / job_id)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": "urgent"}, "--priority 'urgent': expected high, normal, low"),
        ({"notify": 5}, "it does not begin with http:// or https:// and a host"),
        ({"processes": "many"}, "processes 'many': expected 1 or more"),
        ({"processes": 1, "image_processes": "x"}, "--image-processes 'x': expected a whole number"),
        ({"processes": 1, "cfg": "a\0.cfg"}, r"--cfg 'a\x00.cfg': expected a path"),
    ],
)
def test_what_is_no_option_s_value_is_said(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTJOB_HOME", str(tmp_path / "home"))
    begin = trtjob.run if "processes" in options else trtjob.submit
    with pytest.raises(ConfigError, match=re.escape(message)):
        begin(DIGITS / "scenes", model=DIGITS / "digits.weights", output=tmp_path, progress=False, **options)


@pytest.mark.slow
def test_a_job_that_is_handed_in_is_waited_for(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRTJOB_HOME", str(terminal.home))
    worker = terminal.start("worker")  # which also keeps the embedded server
    scenes = DIGITS / "scenes" / "night"
    job = trtjob.submit(scenes, model=DIGITS / "digits.weights", output=tmp_path, classes=["1", "2"], annotate="none")
    assert job.wait(timeout_s=40) is job
    view = job.status()
    assert (view.state, view.done, view.failed) == ("done", view.images, 0)
    assert {found.label for result in job.results() for found in result.detections} <= {"1", "2"}
    assert f"{job.id}: done" in capsys.readouterr().err
    assert "<td>images</td>" in job._repr_html_()
    assert trtjob.job(job.id).folder == trtjob.job(job.folder).folder == job.folder
    assert not job.cancel()
    assert worker.poll() is None


def test_a_job_that_never_ends_is_not_waited_for_for_ever(
    tmp_path: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTJOB_HOME", str(tmp_path / "home"))
    scenes = DIGITS / "scenes" / "night"
    job = trtjob.submit(scenes, model=DIGITS / "digits.weights", output=tmp_path, progress=False)
    with pytest.raises(WaitTimeoutError, match=r"has not ended after 0\.2 s, and goes on") as caught:
        job.wait(timeout_s=0.2, progress=False)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(WaitTimeoutError, match="has not ended after 0 s"):
        job.wait(timeout_s=-1, progress=False)
    assert job.cancel()
    for timeout_s in (None, 0, -1, 10**400):  # it is looked at once, however short the time
        with pytest.raises(JobError, match=f"job '{job.id}' cancelled"):
            job.wait(timeout_s=timeout_s, progress=False)
    wrong: list[Any] = ["x", [], float("nan")]
    for value in wrong:
        with pytest.raises(ConfigError, match=r"^timeout_s .*: expected (a number|seconds)$"):
            job.wait(timeout_s=value, progress=False)


def test_elsewhere_than_on_linux_a_run_says_what_to_do(
    tmp_path: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTJOB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigError, match="workers run on Linux alone, and this is darwin"):
        trtjob.run(DIGITS / "scenes", model=DIGITS / "digits.weights", output=tmp_path, progress=False)
