"""`status --watch` on a terminal: a screen that lives until the job ends."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest
from samples import job_spec
from terminal import Terminal, wait_for

from trtjob.jobs.states import JobState
from trtjob.queue.job_store import JobStore

JOB = job_spec().job_id

pytestmark = pytest.mark.slow


class Screen:
    """A command on a terminal of its own, and all that it has written there."""

    def __init__(self, terminal: Terminal, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        environment = {**os.environ, "TRTJOB_HOME": str(terminal.home), "TERM": "xterm", **terminal.environment}
        command = [sys.executable, "-m", "trtjob", *arguments]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        os.set_blocking(self._master, False)
        self.text = ""

    def shows(self, said: str) -> bool:
        with suppress(BlockingIOError, OSError):  # nothing new, or the command has ended
            while data := os.read(self._master, 1 << 16):
                self.text += data.decode()
        return said in self.text

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def screen(store: JobStore, terminal: Terminal, request: pytest.FixtureRequest) -> Iterator[Screen]:
    screen = Screen(terminal, "status", *request.param, "--watch")
    yield screen
    screen.end()


@pytest.mark.parametrize("screen", [[JOB]], indirect=True)
def test_the_screen_of_a_job_follows_it_to_its_end(store: JobStore, screen: Screen) -> None:
    wait_for(lambda: screen.shows("queued"), "the job on the screen")
    assert "━" * 40 in screen.text
    store.degrade(JOB, "s3://bucket fails: 503")
    wait_for(lambda: screen.shows("s3://bucket fails: 503"), "what the job waits for")
    store.move(JOB, JobState.CANCELLED, message="cancelled")
    assert screen.process.wait(10) == 1
    assert "Traceback" not in screen.text


@pytest.mark.parametrize("screen", [[]], indirect=True)
def test_the_screen_of_all_jobs_lives_until_ctrl_c(store: JobStore, screen: Screen) -> None:
    wait_for(lambda: screen.shows(JOB), "the job on the screen")
    store.create(job_spec(job_id="another"))
    wait_for(lambda: screen.shows("another"), "the next job on the screen")
    screen.process.send_signal(2)
    assert screen.process.wait(10) == 130
    assert screen.shows("No longer watching.")
