"""One node that cannot work on a job, each for another reason: it stands aside, and the others do all of it."""

import importlib.util
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from chaos.conftest import Note
from chaos.hosts import Host
from chaos.spread import LONG_S, Node, Spread
from conftest import missing_service
from terminal import wait_for

import trtjob
from trtjob.jobs.states import TERMINAL

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
    models = copy / "jobs" / "models.py"
    text = models.read_text("utf-8")
    assert "schema_version: Literal[1] = 1" in text
    models.write_text(text.replace("schema_version: Literal[1] = 1", "schema_version: Literal[2] = 2"), "utf-8")
    return Bad("version", {"PYTHONPATH": str(copy.parent)})


Make = Callable[[Spread], Bad]
IN_BUCKETS = [
    pytest.param(_wrong_secret, id="wrong-secret"),
    pytest.param(_wrong_clock, id="wrong-clock"),
]
ON_DISKS = [
    pytest.param(_source_is_empty, id="source-empty"),
    pytest.param(_source_is_absent, id="source-absent"),
    pytest.param(_output_is_empty, id="output-empty"),
    pytest.param(_no_model, id="no-model"),
    pytest.param(_newer_version, id="newer-version"),
]


@pytest.mark.parametrize("make", IN_BUCKETS)
@pytest.mark.parametrize("meets", ["plan", "shard"])
def test_a_node_that_a_bucket_refuses_stands_aside(
    far: Spread, make: Make, meets: str, calm: bytes, note: Note
) -> None:
    _stands_aside(far, make, meets, calm, note)


@pytest.mark.parametrize("make", ON_DISKS)
@pytest.mark.parametrize("meets", ["plan", "shard"])
def test_a_node_that_lacks_what_a_job_needs_stands_aside(
    spread: Spread, make: Make, meets: str, calm: bytes, note: Note
) -> None:
    Path(spread.fleet.output).mkdir()
    (spread.fleet.terminal.home / "models").mkdir(parents=True)
    _stands_aside(spread, make, meets, calm, note)


def _stands_aside(spread: Spread, make: Make, meets: str, calm: bytes, note: Note) -> None:
    """Let a bad node be the only one that moves, until it says what it lacks; then let the other do the job."""
    fleet = spread.fleet
    bad = make(spread)
    host = _host(spread, bad)
    (healthy,) = spread.start("alpha")
    node = None
    if meets == "plan":
        node = _join(spread, host, bad)
        healthy.freeze()
        job_id = fleet.submit("--no-upload")
    else:
        job_id = fleet.submit("--no-upload")
        wait_for(lambda: spread.shards(job_id, healthy), "shards in work", LONG_S)
        healthy.freeze()
        node = _join(spread, host, bad)
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


def _host(spread: Spread, bad: Bad) -> Host:
    host = spread.site.host("beta")
    for folder in bad.hidden:
        host.hide(folder)
    return host


def _join(spread: Spread, host: Host, bad: Bad) -> Node:
    node = spread.start_on(host, **bad.environment)
    wait_for(lambda: spread.worker(node), "the bad node's worker", LONG_S)
    return node


def _wait_aside(spread: Spread, job_id: str, node: Node) -> str:
    """Wait until a node stands aside from a job, which must go on. Returns the reason that it gives."""
    store = spread.fleet.store

    def looked() -> list[str]:
        view = store.view(job_id)
        assert view.state not in TERMINAL, f"the job is {view.state}: {view.message}"
        events = store.events(job_id)
        return [event.detail for event in events if event.event == "stood_aside" and event.worker == node.name]

    return str(wait_for(looked, f"{node.name} to stand aside", LONG_S)[-1])
