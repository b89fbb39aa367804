"""The command line inside the test's process, where it is quick, and at a terminal, where processes matter."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from samples import job_spec
from terminal import DIGITS, Outcome, Terminal, small_digits

from trtjob.cli.app import main
from trtjob.jobs.states import JobState, Priority
from trtjob.queue.embedded_server import EmbeddedServer
from trtjob.queue.job_store import JobStore
from trtjob.queue.views import JobView

Command = Callable[..., Outcome]


@pytest.fixture
def trtjob(capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run a command line in this process, through its error boundary."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        try:
            code = main([*map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    yield run
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def terminal(terminal: Terminal) -> Terminal:
    """A user whose workers have one image process: each takes as long to begin as a dozen images."""
    terminal.environment["TRTJOB_IMAGE_PROCESSES"] = "1"
    return terminal


@pytest.fixture
def digits(terminal: Terminal, converted: Path, tmp_path: Path) -> Path:
    """The sample model, small, which the user has used before: what it finds does not matter here."""
    shutil.copytree(converted, terminal.home / "models")
    return small_digits(tmp_path)


@pytest.fixture
def scenes() -> Path:
    """The folder of sample scenes."""
    return DIGITS / "scenes"


@pytest.fixture
def store(terminal: Terminal, server: EmbeddedServer, redis: Redis) -> JobStore:
    """A store with a job that is queued; commands at the terminal find it."""
    terminal.environment["TRTJOB_REDIS_URL"] = server.url
    store = JobStore(redis)
    store.create(job_spec())
    return store


@pytest.fixture
def view() -> JobView:
    """A job in the middle, with something of everything."""
    return JobView(
        spec=job_spec("/photos", "/out", job_id="photos-1a2b3c4d"),
        state=JobState.RUNNING,
        message="",
        epoch=0,
        reason="submit",
        planned=True,
        images=200,
        ok=70,
        failed=2,
        skipped=0,
        ignored={},
        shards=8,
        shards_done=3,
        live_done=28,
        live_failed=1,
        started_at=1.0,
        finished_at=None,
        priority=Priority.HIGH,
        degraded="s3://bucket fails: 503",
        kinds={"decode": 2, "read": 1},
        retries=2,
    )
