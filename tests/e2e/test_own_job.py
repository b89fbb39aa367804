"""`trtjob run` works on its own job: what another one has left undone, or does, is not its concern."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from terminal import Terminal, records, wait_for, worker_pids

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SMALL = 5
SOON_S = 5.0


def _begun(output: Path) -> list[Path]:
    """Return the commits below an output."""
    return list(output.glob("*/shards/[0-9]*.json"))


@pytest.fixture
def small(tmp_path: Path, scenes: list[Path]) -> Path:
    """A folder of a few images."""
    folder = tmp_path / "small"
    folder.mkdir()
    for scene in scenes[:SMALL]:
        (folder / scene.name).write_bytes(scene.read_bytes())
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_small_run_does_not_wait_for_a_large_job_that_was_interrupted(
    number: signal.Signals, terminal: Terminal, digits: Path, photos: Callable[[int], Path], small: Path, tmp_path: Path
) -> None:
    command: list[str | Path] = ["run", photos(2000), "--model", digits, "-o", tmp_path / "large"]
    large = terminal.start(*command, "--shard-size", "40")
    wait_for(lambda: _begun(tmp_path / "large"), "a commit")
    pids = worker_pids(large.pid)
    large.send_signal(number)
    large.communicate(timeout=30)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the worker's end")
    before = _begun(tmp_path / "large")
    began = time.monotonic()
    outcome = terminal.run("run", small, "--model", digits, "-o", tmp_path / "out")
    elapsed_s = time.monotonic() - began
    assert outcome.code == 0, outcome.err
    assert elapsed_s < SOON_S
    (folder,) = (tmp_path / "out").iterdir()
    assert len(records(folder)) == SMALL
    assert _begun(tmp_path / "large") == before
