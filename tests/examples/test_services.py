"""The unit for systemd and the array for Slurm: what can be tried of them without either."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trtjob.queue.embedded_server import EmbeddedServer

EXAMPLES = Path(__file__).parents[2] / "examples"
ARRAY = EXAMPLES / "slurm" / "array.sh"
BIN = Path(sys.executable).parent


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    verifier = shutil.which("systemd-analyze")
    if verifier is None:
        pytest.skip("systemd is not installed")
    text = (EXAMPLES / "service" / "trtjob-worker.service").read_text()
    unit = tmp_path / "trtjob-worker.service"
    unit.write_text(text.replace("/home/trtjob/venv/bin/trtjob", sys.executable).replace("User=trtjob", "User=root"))
    told = subprocess.run([verifier, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")


def test_a_task_without_a_server_says_what_to_name() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRTJOB_")}
    told = subprocess.run([ARRAY], env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "TRTJOB_REDIS_URL: name the server that all nodes reach" in told.stderr


@pytest.fixture
def task(tmp_path: Path, server: EmbeddedServer) -> Iterator[subprocess.Popen[str]]:
    """A task of an array, as Slurm starts it."""
    if not (BIN / "trtjob").exists():
        pytest.skip("the command is not installed beside this Python")
    own = {
        "TRTJOB_REDIS_URL": server.url,
        "TMPDIR": str(tmp_path),
        "SLURM_ARRAY_JOB_ID": "12",
        "SLURM_ARRAY_TASK_ID": "3",
    }
    environment = {**os.environ, **own, "SLURM_CPUS_PER_TASK": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
    with subprocess.Popen([ARRAY], env=environment, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.slow
def test_a_task_is_a_worker_that_ends_in_order_when_its_time_is_up(task: subprocess.Popen[str], tmp_path: Path) -> None:
    assert task.stderr is not None
    assert "Working on queue 'trtjob'" in task.stderr.readline()
    assert "engine chosen" in task.stderr.readline()  # it listens to signals from then on
    task.send_signal(signal.SIGTERM)
    assert task.wait(30) == 0
    assert (tmp_path / "trtjob-12-3").is_dir()
