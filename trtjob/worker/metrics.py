"""What a node tells Prometheus and probes: GET /metrics, /livez and /readyz."""

import logging
import re
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from redis import RedisError

from trtjob.errors import ConfigError, QueueError
from trtjob.queue.exclusions import exclusions_of
from trtjob.queue.job_store import JobStore
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.views import node_of

log = logging.getLogger(__name__)

# The event loop notes that it turns every two seconds; a node that sweeps a slow server may be late.
LOOP_STANDS_S = 30.0
REQUEST_TIMEOUT_S = 10.0


class Pulse:
    """What one worker process says of itself each second, cumulative since it began; see `HeartbeatThread`."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.counts = Counter({name: int(fields.get(name, 0)) for name in ("images", "failed", "shards", "batches")})
        self.busy_s: dict[str, float] = dict(fields.get("busy_s", {}))
        self.rss_bytes = int(fields.get("rss_bytes", 0))
        self.engine = str(fields.get("engine", ""))
        self.device = str(fields.get("device", ""))


class Node(Protocol):
    """What the daemon knows of itself, read by other threads."""

    name: str
    restarts: Counter[str]
    turned_at: float

    def pulses(self) -> dict[str, Pulse]:
        """Return the last word of each worker process that runs, by name."""
        ...

    def totals(self) -> tuple[Counter[str], dict[str, float]]:
        """Return the counts and the busy seconds of all worker processes since the daemon began."""
        ...


def is_live(node: Node) -> tuple[bool, str]:
    """Tell whether the daemon's event loop turns."""
    age_s = time.monotonic() - node.turned_at
    return age_s < LOOP_STANDS_S, f"the event loop turned {age_s:.0f} s ago"


def is_ready(node: Node, store: JobStore) -> tuple[bool, str]:
    """Tell whether the daemon can work: the queue's server answers, and a worker process beats."""
    try:
        store.redis.ping()
    except (RedisError, QueueError) as err:
        return False, f"the queue's server is away: {err}"
    count = len(node.pulses())
    return count > 0, f"{count} worker processes beat"


def metrics(node: Node, store: JobStore, queue: WorkQueue) -> bytes:
    """Return the metrics in Prometheus' text format: those of this node always, those of the queue while it answers."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collector(node, store, queue))
    return generate_latest(registry)


class _Collector:
    def __init__(self, node: Node, store: JobStore, queue: WorkQueue) -> None:
        self.node, self.store, self.queue = node, store, queue

    def collect(self) -> Iterator[Any]:
        yield from self._of_node()
        try:
            found = list(self._of_queue())
        except Exception as err:  # noqa: BLE001 - those of this node are told always
            log.debug("no metrics of the queue: %s", err)
            found = []
        yield _gauge("trtjob_server_up", "Whether the queue's server answers.", {(): float(bool(found))})
        yield from found

    def _of_node(self) -> Iterator[Any]:
        counts, busy_s = self.node.totals()
        ok = counts["images"] - counts["failed"]
        images = {("ok",): float(ok), ("failed",): float(counts["failed"])}
        yield _counter("trtjob_images", "Images that this node has done.", images, ("result",))
        yield _counter("trtjob_shards", "Shards that this node has committed.", {(): float(counts["shards"])})
        yield _counter("trtjob_batches", "Calls of the engine.", {(): float(counts["batches"])})
        # A sum and no histogram: stages are timed by the thousand a second, and what limits shows in the rates.
        stages = {(stage,): seconds for stage, seconds in busy_s.items()}
        yield _counter("trtjob_stage_seconds", "Seconds of work by stage, over all threads.", stages, ("stage",))
        restarts = {(reason,): float(count) for reason, count in self.node.restarts.items()}
        yield _counter("trtjob_worker_restarts", "Worker processes started again.", restarts, ("reason",))
        pulses = self.node.pulses()
        each = {(name,): float(pulse.counts["images"]) for name, pulse in pulses.items()}
        yield _counter("trtjob_worker_images", "Images that a worker process has done.", each, ("worker",))
        memory = {(name,): float(pulse.rss_bytes) for name, pulse in pulses.items()}
        yield _gauge("trtjob_worker_rss_bytes", "Memory of a worker and its image processes.", memory, ("worker",))
        engines = {(name, pulse.engine, pulse.device): 1.0 for name, pulse in pulses.items() if pulse.engine}
        yield _gauge("trtjob_engine_info", "The engine of a worker process.", engines, ("worker", "engine", "device"))

    def _of_queue(self) -> Iterator[Any]:
        counts = self.store.counts(self.queue.name)
        degraded = counts.pop("degraded")
        jobs = {(state,): float(count) for state, count in counts.items()}
        yield _gauge("trtjob_jobs", "Jobs of this queue, by state.", jobs, ("state",))
        yield _gauge("trtjob_jobs_degraded", "Jobs that wait for a storage that fails.", {(): float(degraded)})
        exclusions = exclusions_of(self.store, self.store.active_ids(self.queue.name)).values()
        left = {(): float(sum(any(node_of(worker) == self.node.name for worker in workers) for workers in exclusions))}
        yield _gauge(
            "trtjob_node_stands_aside", "Jobs that a worker of this node leaves to others: see trtjob status.", left
        )
        depth = {(self.queue.name,): float(len(self.queue))}
        yield _gauge("trtjob_queue_depth", "Messages that wait, at most 256 of each job.", depth, ("queue",))
        workers = [worker for worker in self.store.workers() if worker.may_do(self.queue.name)]
        troubled = {(daemon.name,): float(bool(daemon.trouble)) for daemon in self.store.daemons()}
        yield _gauge("trtjob_daemon_trouble", "Whether a daemon has something to try again.", troubled, ("daemon",))
        ages = {(worker.name,): worker.beat_age_s for worker in workers}
        yield _gauge("trtjob_worker_heartbeat_age_seconds", "Since a worker last reported.", ages, ("worker",))


def _gauge(name: str, text: str, values: Mapping[Any, float], labels: tuple[str, ...] = ()) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def _counter(name: str, text: str, values: Mapping[Any, float], labels: tuple[str, ...] = ()) -> Any:
    from prometheus_client.core import CounterMetricFamily

    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def _filled(family: Any, values: Mapping[Any, float]) -> Any:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


@contextmanager
def serve(address: str, node: Node, store: JobStore, queue: WorkQueue) -> Iterator[str]:
    """Answer at `host:port` for the length of the block; an empty address answers nowhere.

    Yields where it listens. Raises ConfigError for an address that cannot be, or is taken.
    """
    if not address:
        yield ""
        return
    answers: dict[str, Callable[[], tuple[int, str, bytes]]] = {
        "/livez": lambda: _said(*is_live(node)),
        "/readyz": lambda: _said(*is_ready(node, store)),
        "/metrics": lambda: (200, "text/plain; version=0.0.4; charset=utf-8", metrics(node, store, queue)),
    }
    server = _listen(address, answers)
    thread = threading.Thread(target=server.serve_forever, name="trtjob-http", daemon=True)
    thread.start()
    try:
        host, port = server.server_address[:2]
        yield f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _said(is_fine: bool, why: str) -> tuple[int, str, bytes]:
    return 200 if is_fine else 503, "text/plain; charset=utf-8", f"{why}\n".encode()


def _listen(address: str, answers: dict[str, Callable[[], tuple[int, str, bytes]]]) -> ThreadingHTTPServer:
    host, port = _host_and_port(address)

    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_S

        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            status, kind, body = answer() if answer else (404, "text/plain", b"try /livez, /readyz or /metrics\n")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_arguments: Any) -> None:
            """Probes come every few seconds: no log of them."""

    try:
        # One address, of the first kind that the host has; so also `[::1]`, for which a server must be told its family.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return _server_class(found[0])((str(found[4][0]), port), Handler)
    except (OSError, UnicodeError) as err:
        why = getattr(err, "strerror", None) or "no such host"
        raise ConfigError(f"--http '{address}': cannot listen there: {why}. Choose another host or port") from err


def _server_class(family: int) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        address_family = socket.AddressFamily(family)

        def server_bind(self) -> None:
            """Take the address, without asking a name server for its name as HTTPServer does."""
            socketserver.TCPServer.server_bind(self)

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say in a line what became of a request: who asked may have gone away."""
            log.debug("a request was not answered", exc_info=True)

    return Server


def _host_and_port(address: str) -> tuple[str, int]:
    """Read `host:port` or `[IPv6]:port`. Raises ConfigError."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([^\s\x00-\x1f\x7f:\[\]]+)):(\d{1,5})", address, re.ASCII)
    if not match or int(match[3]) > 65_535:
        raise ConfigError(
            f"--http '{_printable(address)}': expected HOST:PORT, such as 127.0.0.1:9100, 0.0.0.0:9100 or [::1]:9100"
        )
    return match[1] or match[2], int(match[3])


def _printable(text: str) -> str:
    return text.encode("unicode_escape").decode()[:200]
