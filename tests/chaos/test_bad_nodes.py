"""One node that cannot work on a job, each for another reason: it stands aside, and the others do all of it."""

import importlib.util
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from chaos.conftest import Note
from chaos.spread import LONG_S, Node, Spread
from conftest import missing_service
from terminal import wait_for

import trtjob
from trtjob.jobs.states import TERMINAL
from trtjob.queue.views import node_of

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(400)]


@dataclass(frozen=True)
class Bad:
    """What makes a node a bad one: its environment, and folders that it does not see. reason: in what it says."""

    reason: str
    environment: dict[str, str] = field(default_factory=dict)
    hidden: tuple[Path, ...] = ()


def _wrong_secret(_spread: Spread) -> Bad:
    return Bad("the secret key is wrong", {"AWS_SECRET_ACCESS_KEY": "another-secret"})


def _wrong_clock(_spread: Spread) -> Bad:
    found = importlib.util.find_spec("libfaketime")
    if found is None or found.origin is None:
        missing_service("libfaketime is not installed: make chaos brings it")
        raise AssertionError
    library = Path(found.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    environment = {"LD_PRELOAD": str(library), "FAKETIME": "+1h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return Bad("clock is wrong", environment)


def _source_is_empty(spread: Spread) -> Bad:
    return Bad(str(spread.fleet.photos), hidden=(Path(spread.fleet.photos),))


def _source_is_absent(spread: Spread) -> Bad:
    return Bad(str(spread.fleet.photos), hidden=(Path(spread.fleet.photos).parent,))


def _output_is_empty(spread: Spread) -> Bad:
    return Bad(spread.fleet.output, hidden=(Path(spread.fleet.output),))


def _no_model(spread: Spread) -> Bad:
    return Bad("model", hidden=(spread.fleet.terminal.home / "models",))


def _newer_version(spread: Spread) -> Bad:
    """The same trtjob, for which a job has another number."""
    copy = spread.folder / "newer" / "trtjob"
    shutil.copytree(Path(trtjob.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    spec = copy / "jobs" / "spec.py"
    text = spec.read_text("utf-8")
    assert "schema_version: Literal[1] = 1" in text
    spec.write_text(text.replace("schema_version: Literal[1] = 1", "schema_version: Literal[2] = 2"), "utf-8")
    return Bad("version", {"PYTHONPATH": str(copy.parent)})


Make = Callable[[Spread], Bad]
Meet = Callable[[Spread, Node, Node], str]


def _at_the_plan(spread: Spread, healthy: Node, _bad: Node) -> str:
    """Hand a job in while only the bad node moves. Returns its id."""
    healthy.freeze()
    return spread.fleet.submit("--no-upload")


def _at_a_shard(spread: Spread, healthy: Node, bad: Node) -> str:
    """Let the healthy node plan, then only the bad one move. Returns the job's id."""
    bad.freeze()
    job_id = spread.fleet.submit("--no-upload")
    wait_for(lambda: spread.shards(job_id, healthy), "shards in work", LONG_S)
    healthy.freeze()
    bad.thaw()
    return job_id


MEETINGS = [pytest.param(_at_the_plan, id="plan"), pytest.param(_at_a_shard, id="shard")]


@pytest.mark.parametrize("make", [_wrong_secret, _wrong_clock], ids=["wrong-secret", "wrong-clock"])
@pytest.mark.parametrize("meet", MEETINGS)
def test_a_node_that_a_bucket_refuses_stands_aside(
    far: Spread, make: Make, meet: Meet, calm: bytes, note: Note
) -> None:
    _stands_aside(far, make(far), meet, calm, note)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(_source_is_empty, id="source-empty"),
        pytest.param(_source_is_absent, id="source-absent"),
        pytest.param(_output_is_empty, id="output-empty"),
        pytest.param(_no_model, id="no-model"),
    ],
)
@pytest.mark.parametrize("meet", MEETINGS)
def test_a_node_that_lacks_what_a_job_needs_stands_aside(
    near: Spread, make: Make, meet: Meet, calm: bytes, note: Note
) -> None:
    _stands_aside(near, make(near), meet, calm, note)


def test_a_node_of_another_version_stands_aside(near: Spread, calm: bytes, note: Note) -> None:
    """At a shard: it asks for nothing of a job that it cannot read, so nobody would hand it the plan again."""
    _stands_aside(near, _newer_version(near), _at_a_shard, calm, note)


@pytest.mark.parametrize("place", ["photos", "output"])
def test_a_mount_goes_away_in_the_middle_of_a_shard_and_comes_back(
    near: Spread, place: str, calm: bytes, note: Note
) -> None:
    fleet = near.fleet
    folder = Path(fleet.photos if place == "photos" else fleet.output)
    healthy, struck = near.start("alpha", "beta")
    healthy.freeze()
    job_id = fleet.submit("--no-upload")
    near.strike(job_id, struck, lambda: struck.host.hide(folder))
    began = time.monotonic()
    assert str(folder) in _wait_aside(near, job_id, struck)
    aside_s = time.monotonic() - began
    struck.host.show(folder)
    healthy.thaw()
    fleet.check(job_id, calm, timeout_s=LONG_S)
    note(aside_s=aside_s, job_s=time.monotonic() - began)
    fleet.end(healthy.daemon, struck.daemon)


@pytest.fixture
def near(spread: Spread) -> Spread:
    """A fleet over hosts that share a disk, with mount points for all that a host may lack."""
    Path(spread.fleet.output).mkdir()
    (spread.fleet.terminal.home / "models").mkdir(parents=True)
    return spread


def _stands_aside(spread: Spread, bad: Bad, meet: Meet, calm: bytes, note: Note) -> None:
    """Let a bad node meet a job alone, until it says what it lacks; then let the healthy one do the job."""
    fleet = spread.fleet
    healthy, node = _start(spread, bad)
    job_id = meet(spread, healthy, node)
    began = time.monotonic()
    reason = _wait_aside(spread, job_id, node)
    aside_s = time.monotonic() - began
    assert bad.reason in reason
    told = fleet.terminal.json("status", job_id)["jobs"][0]["stand_aside"]
    assert [(one["node"], one["reason"]) for one in told] == [(node.name, reason)]
    healthy.thaw()
    view = fleet.check(job_id, calm, timeout_s=LONG_S)
    note(aside_s=aside_s, job_s=time.monotonic() - began)
    workers = {m.worker for m in fleet.folder(job_id).manifests(range(view.shards))}
    assert [worker for worker in workers if not worker.startswith(f"{healthy.name}-")] == []
    fleet.end(node.daemon, healthy.daemon)


def _start(spread: Spread, bad: Bad) -> tuple[Node, Node]:
    """Start a healthy node and a bad one."""
    host = spread.site.host("beta")
    for folder in bad.hidden:
        host.hide(folder)
    node = spread.start_on(host, **bad.environment)
    (healthy,) = spread.start("alpha")
    wait_for(lambda: spread.worker(node), "the bad node's worker", LONG_S)
    return healthy, node


def _wait_aside(spread: Spread, job_id: str, node: Node) -> str:
    """Wait until a node stands aside from a job, which must go on. Returns the reason that it gives."""
    store = spread.fleet.store

    def looked() -> list[str]:
        view = store.view(job_id)
        assert view.state not in TERMINAL, f"the job is {view.state}: {view.message}"
        events = store.events(job_id)
        return [event.detail for event in events if event.event == "stood_aside" and node_of(event.worker) == node.name]

    return str(wait_for(looked, f"{node.name} to stand aside", LONG_S)[-1])
