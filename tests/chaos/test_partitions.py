"""Hosts are cut off, one way and both, and freeze; the others go on, and who comes back does no harm.

Each test notes how long it took: until others had the work of the node that was struck, and until that was back.
"""

import time
from collections.abc import Callable

import pytest
from chaos.conftest import Note
from chaos.hosts import QUEUE, STORE, Host
from chaos.spread import LONG_S, Spread
from terminal import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(400)]

Fault = Callable[[Host], None]


def _both(host: Host) -> None:
    for cable in host.cables.values():
        cable.lose()


def _out(host: Host) -> None:
    for cable in host.cables.values():
        cable.lose(way="out")


def _in(host: Host) -> None:
    for cable in host.cables.values():
        cable.lose(way="in")


def _unplugged(host: Host) -> None:
    for cable in host.cables.values():
        cable.unplug()


CUTS = [
    pytest.param(_both, id="both-ways"),
    pytest.param(_out, id="what-it-sends"),
    pytest.param(_in, id="what-it-hears"),
    pytest.param(_unplugged, id="unplugged"),
    pytest.param(lambda host: host.cables[QUEUE].lose(), id="redis-only"),
    pytest.param(lambda host: host.cables[STORE].lose(), id="s3-only"),
]


def _mend(host: Host) -> None:
    for cable in host.cables.values():
        cable.mend()


@pytest.mark.parametrize("cut", CUTS)
def test_a_node_that_is_cut_off_loses_its_work_to_the_others(far: Spread, cut: Fault, calm: bytes, note: Note) -> None:
    """The way is mended after the job's end."""
    fleet = far.fleet
    _healthy, struck = far.start("alpha", "beta")
    job_id = fleet.submit()
    began = time.monotonic()
    held = far.strike(job_id, struck, lambda: cut(struck.host))
    struck_at = time.monotonic()
    taken_over_s = far.wait_taken_over(job_id, held, struck_at)
    fleet.check(job_id, calm, timeout_s=LONG_S)
    job_s = time.monotonic() - began
    mended_at = time.monotonic()
    _mend(struck.host)
    back_s = far.wait_back(struck, mended_at)
    fleet.check(job_id, calm)
    note(taken_over_s=taken_over_s, job_s=job_s, back_s=back_s)
    fleet.end(*(node.daemon for node in far.nodes))


@pytest.mark.parametrize("cut", CUTS)
def test_all_nodes_are_cut_off_and_go_on_afterwards(far: Spread, cut: Fault, calm: bytes, note: Note) -> None:
    fleet = far.fleet
    nodes = far.start("alpha", "beta")
    job_id = fleet.submit()
    began = time.monotonic()
    fleet.wait_done(job_id, 60, LONG_S)
    for node in nodes:
        cut(node.host)
    time.sleep(8)
    mended_at = time.monotonic()
    for node in nodes:
        _mend(node.host)
    progress_s = far.wait_progress(job_id, mended_at)
    fleet.check(job_id, calm, timeout_s=LONG_S)
    note(progress_s=progress_s, job_s=time.monotonic() - began)
    fleet.end(*(node.daemon for node in nodes))


@pytest.mark.parametrize(
    ("share", "networks"),
    [
        pytest.param(0.2, [QUEUE], id="one-in-five-to-redis"),
        pytest.param(0.05, [QUEUE, STORE], id="one-in-twenty"),  # images over a worse way take minutes
    ],
)
def test_packets_are_lost_at_random(far: Spread, share: float, networks: list[str], calm: bytes, note: Note) -> None:
    fleet = far.fleet
    nodes = far.start("alpha", "beta")
    for node in nodes:
        for network in networks:
            node.host.cables[network].lose(share)
    job_id = fleet.submit()
    began = time.monotonic()
    fleet.check(job_id, calm, timeout_s=LONG_S)
    note(job_s=time.monotonic() - began)
    for node in nodes:
        _mend(node.host)
    fleet.end(*(node.daemon for node in nodes))


def test_a_frozen_node_comes_back_after_the_jobs_end(far: Spread, calm: bytes, note: Note) -> None:
    fleet = far.fleet
    _healthy, struck = far.start("alpha", "beta")
    job_id = fleet.submit()
    began = time.monotonic()
    held = far.strike(job_id, struck)
    taken_over_s = far.wait_taken_over(job_id, held, time.monotonic())
    fleet.check(job_id, calm, timeout_s=LONG_S)
    job_s = time.monotonic() - began
    thawed_at = time.monotonic()
    struck.thaw()
    back_s = far.wait_back(struck, thawed_at)
    fleet.check(job_id, calm)
    note(taken_over_s=taken_over_s, job_s=job_s, back_s=back_s)
    fleet.end(*(node.daemon for node in far.nodes))


def test_a_planner_freezes_and_comes_back_after_the_jobs_end(far: Spread, calm: bytes, note: Note) -> None:
    fleet = far.fleet
    (struck,) = far.start("beta")
    struck.host.cables[STORE].lose()  # so that it gets no further than the plan
    job_id = fleet.submit()
    began = time.monotonic()
    wait_for(lambda: far.held(job_id, struck), "the plan in its hands", LONG_S)
    struck.freeze()
    _mend(struck.host)
    far.start("alpha")
    fleet.check(job_id, calm, timeout_s=LONG_S)
    job_s = time.monotonic() - began
    thawed_at = time.monotonic()
    struck.thaw()
    back_s = far.wait_back(struck, thawed_at)
    fleet.check(job_id, calm)
    note(job_s=job_s, back_s=back_s)
    fleet.end(*(node.daemon for node in far.nodes))
