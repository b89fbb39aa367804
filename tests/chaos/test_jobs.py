"""Jobs are cancelled, retried and given up in the middle; images kill their workers; the clock jumps."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chaos.conftest import BROKEN
from chaos.fleet import Fleet
from poison import crashing_decoder, make_poison, put_into_every_process
from terminal import wait_for

from trtjob.jobs.folder import RESULTS
from trtjob.jobs.states import JobState

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(180)]

JUMPING_CLOCK = """
import time
from pathlib import Path
_time = time.time

def jumped():
    try:
        return _time() + float(Path({offset!r}).read_text())
    except (OSError, ValueError):
        return _time()

time.time = jumped
"""


@pytest.fixture
def site(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Put code into every process that is started with the environment returned."""
    return lambda code: put_into_every_process(tmp_path / "site", code)


@pytest.fixture
def own_photos(fleet: Fleet, tmp_path: Path) -> Path:
    """A copy of the photos that a test may damage or mend; the fleet's job runs over it."""
    shutil.copytree(fleet.photos, tmp_path / "photos")
    fleet.photos = tmp_path / "photos"
    return tmp_path / "photos"


def _records(fleet: Fleet, job_id: str) -> dict[str, dict[str, Any]]:
    return {row["image"]: row for row in map(json.loads, fleet.folder(job_id).storage.lines(RESULTS))}


def test_a_job_is_cancelled_in_the_middle_of_a_batch_and_goes_on_later(fleet: Fleet, calm: bytes) -> None:
    nodes = [fleet.node(), fleet.node()]
    job_id = fleet.submit()
    fleet.wait_done(job_id, 60)
    assert fleet.terminal.run("cancel", job_id).code == 0
    assert fleet.view(job_id).state is JobState.CANCELLED
    wait_for(lambda: not any(w.units for w in fleet.store.workers()), "the workers to let go")
    done = fleet.view(job_id).done
    assert fleet.view(job_id).done == done < 600
    assert fleet.submit() == job_id
    fleet.check(job_id, calm)
    fleet.end(*nodes)


def test_failed_images_are_tried_again_and_nothing_else(fleet: Fleet, own_photos: Path, crowd: Path) -> None:
    nodes = [fleet.node(), fleet.node()]
    job_id = fleet.submit()
    fleet.wait_end(job_id)
    before = _records(fleet, job_id)
    for name in BROKEN:
        shutil.copy(crowd / "a" / "0000.jpg", own_photos / name)
    assert fleet.terminal.run("retry", job_id, "--wait").code == 0
    after = _records(fleet, job_id)
    assert fleet.view(job_id).state is JobState.DONE
    assert [image for image in before if before[image] != after[image]] == list(BROKEN)
    assert fleet.folder(job_id).epochs()[1].images == len(BROKEN)
    fleet.check_server(job_id)
    fleet.end(*nodes)


def test_too_many_failures_end_the_job_and_mended_images_let_it_finish(
    fleet: Fleet, own_photos: Path, crowd: Path
) -> None:
    for file in sorted((own_photos / "b").iterdir())[:40]:
        file.write_bytes(b"rubbish")
    nodes = [fleet.node(), fleet.node()]
    job_id = fleet.submit("--max-failures", "10")
    view = fleet.wait_end(job_id)
    assert view.state is JobState.FAILED
    assert "--max-failures" in view.message
    assert not fleet.folder(job_id).storage.exists("_SUCCESS.json")
    for file in sorted((own_photos / "b").iterdir())[:40]:
        shutil.copy(crowd / "b" / file.name, file)
    assert fleet.submit("--max-failures", "10") == job_id
    assert fleet.wait_end(job_id).state is JobState.DONE_WITH_ERRORS
    assert {image for image, row in _records(fleet, job_id).items() if "error" in row} == set(BROKEN)
    fleet.end(*nodes)


@pytest.mark.parametrize("fault", ["SIGSEGV", "SIGKILL"])
def test_poison_images_are_set_aside_and_their_neighbours_are_done(
    fleet: Fleet, own_photos: Path, site: Callable[[str], dict[str, str]], calm: bytes, fault: str
) -> None:
    """SIGKILL is what the kernel's out-of-memory killer sends."""
    poison = ["a/0003.jpg", "b/0100.jpg", "b/0103.jpg"]
    for name in poison:
        make_poison(own_photos / name)
    environment = site(crashing_decoder(fault))
    nodes = [fleet.node(**environment), fleet.node(**environment)]
    job_id = fleet.submit()
    view = fleet.wait_end(job_id, 150)
    assert view.state is JobState.DONE_WITH_ERRORS, view.message
    found = _records(fleet, job_id)
    crashed = {image for image, row in found.items() if row.get("error", {}).get("kind") == "crashed"}
    assert crashed == set(poison)
    expected = {row["image"]: row for row in map(json.loads, calm.splitlines())}
    assert {i: row for i, row in found.items() if i not in crashed} == {
        i: row for i, row in expected.items() if i not in crashed
    }
    starts = [int(worker.name.rpartition("-")[2]) for worker in fleet.store.workers()]
    assert sum(starts) <= 6 * len(poison) + 2, "more restarts than a few for each poison image"
    fleet.check_server(job_id)
    fleet.end(*nodes)


def test_a_clock_that_jumps_changes_nothing(
    fleet: Fleet, site: Callable[[str], dict[str, str]], calm: bytes, tmp_path: Path
) -> None:
    offset = tmp_path / "offset"
    environment = site(JUMPING_CLOCK.format(offset=str(offset)))
    nodes = [fleet.node(**environment), fleet.node(**environment)]
    job_id = fleet.submit()
    for images, jump_s in ((60, 7200), (200, -7200), (350, 0)):
        fleet.wait_done(job_id, images)
        offset.write_text(str(jump_s))
    fleet.check(job_id, calm)
    fleet.end(*nodes)
