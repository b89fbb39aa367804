"""A fleet over hosts: its daemons, what strikes one of them in the middle of its work, and how long that hurts."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from chaos.fleet import Fleet
from chaos.hosts import Host, Site
from terminal import Terminal, descendants, wait_for

from trtjob.queue.keys import job_key
from trtjob.queue.units import shard_of
from trtjob.queue.views import WorkerView

LONG_S = 120.0  # for what takes a few seconds on an idle machine


@dataclass
class Node:
    """A host with a daemon on it, which has one worker process."""

    host: Host
    terminal: Terminal
    daemon: "subprocess.Popen[str]"

    @property
    def name(self) -> str:
        """What the daemon calls itself."""
        return f"{self.host.name}-{self.daemon.pid}"

    def freeze(self) -> None:
        """Freeze the daemon and all that it started."""
        _signal([self.daemon.pid], signal.SIGSTOP)  # first, so that it starts no other
        _signal(descendants(self.daemon.pid), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let all go on."""
        if self.daemon.poll() is None:
            _signal([*descendants(self.daemon.pid), self.daemon.pid], signal.SIGCONT)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass
class Spread:
    """The fleet, the site that it lives on, and its nodes."""

    fleet: Fleet
    site: Site
    folder: Path
    nodes: list[Node] = field(default_factory=list)

    def start(self, *names: str, **environment: str) -> list[Node]:
        """Start a node on a new host for each name, and wait until all of them report."""
        started = [self._start(name, environment) for name in names]
        wait_for(lambda: all(map(self.worker, started)), f"the workers on {' and '.join(names)}", LONG_S)
        return started

    def _start(self, name: str, environment: dict[str, str]) -> Node:
        return self.start_on(self.site.host(name), **environment)

    def start_on(self, host: Host, **environment: str) -> Node:
        """Start a daemon on a host that is there, and do not wait for it."""
        terminal = Terminal(self.folder / f"home of {host.name}", self.fleet.terminal.environment, host.within)
        node = Node(host, terminal, terminal.start("worker", "--threads", "1", **environment))
        self.nodes.append(node)
        return node

    def end(self) -> None:
        """End all that a test has left."""
        for node in self.nodes:
            node.thaw()
            node.terminal.end_all()
            self.site.remove(node.host)

    # -- what its nodes do ---------------------------------------------------------------------------------------------

    def worker(self, node: Node) -> WorkerView | None:
        """Return a node's worker process, as it last reported; None where it has not for some seconds."""
        found = [worker for worker in self.fleet.store.workers() if worker.host == node.host.name]
        return next((worker for worker in found if worker.beat_age_s < 4), None)

    def held(self, job_id: str, node: Node | None = None) -> set[tuple[str, str]]:
        """Return the units in work, each with its holder: all of them, or those of one node."""
        holders = self.fleet.store.redis.hgetall(job_key(job_id) + ":holders")
        found = {(unit.decode(), holder.decode()) for unit, holder in holders.items()}
        return {(unit, holder) for unit, holder in found if node is None or f"|{node.name}-" in holder}

    def shards(self, job_id: str, node: Node) -> set[tuple[str, str]]:
        """Return the shards that a node has in work, each with its holder."""
        return {(unit, holder) for unit, holder in self.held(job_id, node) if shard_of(unit) is not None}

    def strike(self, job_id: str, node: Node, fault: Callable[[], None] | None = None) -> set[tuple[str, str]]:
        """Let a fault happen while a node has shards in hand; without one, freeze it then. Returns these shards."""
        deadline = time.monotonic() + LONG_S
        while time.monotonic() < deadline:
            wait_for(lambda: self.shards(job_id, node), f"shards in the hands of {node.name}", LONG_S)
            node.freeze()  # so that it cannot be done while we look
            held = self.shards(job_id, node)
            if held and fault is None:
                return held
            if held and fault is not None:
                fault()
            node.thaw()
            if held:
                return held
        raise AssertionError(f"{node.name} never had a shard in hand when it was looked at")

    def wait_taken_over(self, job_id: str, held: set[tuple[str, str]], since: float) -> float:
        """Wait until work is in other hands or done. Returns the seconds that it took since a time."""
        wait_for(lambda: not held & self.held(job_id), f"others to take over {sorted(held)}", LONG_S)
        return time.monotonic() - since

    def wait_progress(self, job_id: str, since: float) -> float:
        """Wait until more is done than now. Returns the seconds that it took since a time."""
        done = self.fleet.view(job_id).done
        wait_for(lambda: self.fleet.view(job_id).done > done, "progress", LONG_S)
        return time.monotonic() - since

    def wait_back(self, node: Node, since: float) -> float:
        """Wait until a node reports again and has nothing in hand. Returns the seconds that it took since a time."""

        def is_back() -> bool:
            worker = self.worker(node)
            return worker is not None and not worker.units

        wait_for(is_back, f"{node.host.name} to be back", LONG_S)
        return time.monotonic() - since
