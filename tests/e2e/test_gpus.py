"""Several GPUs of one machine: real ones where there are two, and two that stand in for them, which compute on the
host: CUDA's driver is a library of our own there (cuda_stand_in.c)."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from poison import hanging_file, put_into_every_process
from stand_in import compile_driver
from terminal import Terminal, job_folder, wait_for, worker_pids

from trtjob.engines.cuda.survey import survey

_ON_HOST = """
import sys
if {"trtjob", "trtjob.worker.process"} & set(sys.orig_argv):
    import pytest
    from engines.on_host import compute_on_host
    compute_on_host(pytest.MonkeyPatch())
"""
IMAGES = 48


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """A file: while it is there, the second of the GPUs that stand in is not."""
    return tmp_path / "lost"


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A file: while it is there, no image can be read, so that one GPU is not done before the other has its model."""
    return tmp_path / "held"


@pytest.fixture
def on_stand_ins(terminal: Terminal, tmp_path: Path, lost: Path, held: Path) -> None:
    """Have the user's machine have two GPUs."""
    (tmp_path / "driver").mkdir()
    site = put_into_every_process(tmp_path / "site", _ON_HOST + hanging_file(".jpg", held))["PYTHONPATH"]
    terminal.environment |= {
        "LD_LIBRARY_PATH": str(compile_driver(tmp_path / "driver")),
        "CUDA_STAND_IN_GPUS": "2",
        "CUDA_STAND_IN_LOST": str(lost),
        "PYTHONPATH": os.pathsep.join([site, str(Path(__file__).parents[1])]),
        "TRTJOB_BATCH": "4",
    }


@pytest.fixture(
    params=[
        pytest.param("stand-ins", marks=[pytest.mark.extra, pytest.mark.slow]),
        pytest.param("real", marks=pytest.mark.gpu),
    ]
)
def two_gpus(request: pytest.FixtureRequest, terminal: Terminal, tmp_path: Path, held: Path) -> None:
    """Have the user's machine have two GPUs."""
    if request.param == "stand-ins":
        request.getfixturevalue("on_stand_ins")
        return
    if len(survey().gpus) < 2:
        pytest.skip("this machine has not two GPUs")
    site = put_into_every_process(tmp_path / "site", hanging_file(".jpg", held))["PYTHONPATH"]
    terminal.environment["PYTHONPATH"] = os.pathsep.join([site, os.environ.get("PYTHONPATH", "")])


def devices(terminal: Terminal) -> set[str]:
    """Return what the worker processes run on."""
    return {worker["device"].partition(":")[0] for worker in terminal.status()["workers"]} - {""}


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("two_gpus")
def test_one_gpu_two_and_two_of_which_one_ends_give_the_same_bytes(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path, held: Path
) -> None:
    def command(output: str, gpus: str) -> list[str | Path]:
        how = ["--engine", "cuda", "--gpus", gpus, "--annotate", "none", "--shard-size", "4"]
        return ["run", source, "--model", digits, "-o", tmp_path / output, *how]

    source = photos(IMAGES)
    one = terminal.run(*command("one", "0"), timeout_s=90)
    assert one.code == 0, one.err
    held.touch()
    two = terminal.start(*command("two", "all"))
    wait_for(lambda: devices(terminal) == {"GPU 0", "GPU 1"}, "both GPUs at work", 60)
    os.kill(worker_pids(two.pid)[0], signal.SIGKILL)
    held.unlink()
    _, err = two.communicate(timeout=90)
    assert two.returncode == 0, err
    (job,) = (job for job in terminal.status()["jobs"] if job["output"].startswith(str(tmp_path / "two")))
    assert (job["ok"], job["failed"], job["retries"]) == (IMAGES, 0, 0)
    results = [(job_folder(tmp_path / output) / "results.jsonl").read_bytes() for output in ("one", "two")]
    assert results[0] == results[1]


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.extra
@pytest.mark.timeout(180)
@pytest.mark.usefixtures("on_stand_ins")
def test_a_gpu_that_is_taken_away_leaves_its_work_to_the_other_and_is_taken_again_when_it_is_back(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path, lost: Path, held: Path
) -> None:
    held.touch()
    daemon = terminal.start("worker", "--engine", "cuda")
    source, output = photos(2 * IMAGES), tmp_path / "out"
    how = ["--annotate", "none", "--shard-size", "4"]
    submitted = terminal.here("submit", source, "--model", digits, "-o", output, *how)
    assert submitted.code == 0, submitted.err
    wait_for(lambda: devices(terminal) == {"GPU 0", "GPU 1"}, "both GPUs at work", 60)
    lost.touch()
    (second,) = (worker["pid"] for worker in terminal.status()["workers"] if worker["device"].startswith("GPU 1"))
    os.kill(second, signal.SIGKILL)  # as its process ends when its context breaks
    held.unlink()

    def trouble() -> str:
        return "; ".join(found["trouble"] for found in terminal.status()["daemons"])

    told = re.compile(r"GPU 1: its worker process died \d+ times in a row, last of its GPU failed; pause of \d+ s")
    wait_for(lambda: told.search(trouble()), "word of the GPU", 60)
    assert told.search(terminal.here("doctor", "--json").out)
    wait_for(lambda: terminal.status()["jobs"][0]["state"] == "done", "the end of the job", 60)
    (job,) = terminal.status()["jobs"]
    assert (job["ok"], job["failed"], job["retries"]) == (2 * IMAGES, 0, 0)
    lost.unlink()
    wait_for(lambda: len(worker_pids(daemon.pid)) == 2 and not trouble(), "the GPU to be taken again", 60)
