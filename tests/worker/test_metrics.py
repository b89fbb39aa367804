"""What a daemon tells probes and Prometheus, of a real job."""

import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from samples import job_spec
from terminal import Terminal, wait_for

from trtjob.errors import ConfigError
from trtjob.jobs.states import JobState
from trtjob.queue.job_store import JobStore
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.units import shard_unit
from trtjob.worker.metrics import Pulse, is_live, is_ready, metrics, serve


class Idle:
    """A node that has done something, and knows nothing else."""

    def __init__(self) -> None:
        self.name = "node-17"
        self.restarts = Counter({"SIGSEGV": 2})
        self.turned_at = time.monotonic()
        self.beating = True

    def pulses(self) -> dict[str, Pulse]:
        fields = {"images": 30, "failed": 2, "shards": 3, "batches": 28, "busy_s": {"infer": 1.5}, "rss_bytes": 1 << 20}
        return {"w-1": Pulse(fields | {"engine": "cpu", "device": "CPU"})} if self.beating else {}

    def totals(self) -> tuple[Counter[str], dict[str, float]]:
        pulse = self.pulses()["w-1"]
        return pulse.counts, pulse.busy_s


@pytest.fixture
def node() -> Idle:
    return Idle()


def samples(text: bytes) -> dict[str, float]:
    """Return the metrics as Prometheus reads them, as `name{label}`."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(value for _, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_a_node_tells_what_it_has_done(node: Idle, store: JobStore, queue: WorkQueue) -> None:
    store.create(job_spec())
    store.degrade(job_spec().job_id, "s3://b fails")
    queue.put(job_spec().job_id, [shard_unit(0), shard_unit(1)])
    found = samples(metrics(node, store, queue))
    assert found["trtjob_images_total{ok}"] == 28
    assert found["trtjob_images_total{failed}"] == 2
    assert found["trtjob_shards_total"] == 3
    assert found["trtjob_stage_seconds_total{infer}"] == 1.5
    assert found["trtjob_worker_restarts_total{SIGSEGV}"] == 2
    assert found["trtjob_engine_info{CPU,cpu,w-1}"] == 1
    assert found["trtjob_worker_rss_bytes{w-1}"] == 1 << 20
    assert found["trtjob_worker_images_total{w-1}"] == 30
    assert found["trtjob_jobs{queued}"] == 1
    assert found["trtjob_jobs{done}"] == 0
    assert found["trtjob_jobs_degraded"] == 1
    assert found["trtjob_queue_depth{test}"] == 2
    assert found["trtjob_server_up"] == 1


def test_no_metric_has_a_jobs_name(node: Idle, store: JobStore, queue: WorkQueue) -> None:
    """Each job would be a new series for ever."""
    store.create(job_spec(), JobState.RUNNING)
    assert job_spec().job_id.encode() not in metrics(node, store, queue)


def test_a_node_is_live_while_its_loop_turns(node: Idle) -> None:
    assert is_live(node)[0]
    node.turned_at -= 60
    assert is_live(node) == (False, "the event loop turned 60 s ago")


def test_a_node_is_ready_when_a_worker_beats(node: Idle, store: JobStore) -> None:
    assert is_ready(node, store)[0]
    node.beating = False
    assert is_ready(node, store) == (False, "0 worker processes beat")


@pytest.mark.slow
def test_without_its_server_a_node_is_not_ready_and_tells_what_it_knows(node: Idle) -> None:
    away = Redis(port=1)
    is_fine, why = is_ready(node, JobStore(away))
    assert not is_fine
    assert "the queue's server is away" in why
    found = samples(metrics(node, JobStore(away), WorkQueue(away, "test")))
    assert found["trtjob_server_up"] == 0
    assert found["trtjob_shards_total"] == 3


@pytest.mark.parametrize(
    "address",
    [
        *("9100", "host", ":9100", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:http", "::1:9100", "[::1]", "[::1]9100"),
        *(
            "[]:9100",
            "[host]:9100",
            "[::1:9100",
            "::1]:9100",
            "my host:9100",
            "127.0.0.1:-1",
            "127.0.0.1: 91",
            "\x00:1",
        ),
        *("127.0.0.1:\u0663", "http://127.0.0.1:9100", "127.0.0.1:9100\n"),
    ],
)
def test_what_is_no_address_is_refused(node: Idle, store: JobStore, queue: WorkQueue, address: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"), serve(address, node, store, queue):
        pass


def test_a_port_that_is_taken_is_named(node: Idle, store: JobStore, queue: WorkQueue) -> None:
    with serve("127.0.0.1:0", node, store, queue) as place:
        port = place.rpartition(":")[2]
        with pytest.raises(ConfigError, match="cannot listen there"), serve(f"127.0.0.1:{port}", node, store, queue):
            pass


@pytest.mark.parametrize(
    "address", ["no-such-host.invalid:9100", f"{'a' * 70}.example:1", "192.0.2.1:0", "[2001:db8::1]:0"]
)
def test_a_place_that_is_not_this_machines_is_one_line(
    node: Idle, store: JobStore, queue: WorkQueue, address: str
) -> None:
    with pytest.raises(ConfigError, match="cannot listen there") as caught, serve(address, node, store, queue):
        pass
    assert str(caught.value).isprintable()


def test_an_ipv6_address_is_listened_at(node: Idle, store: JobStore, queue: WorkQueue) -> None:
    with serve("[::1]:0", node, store, queue) as place:
        assert place.startswith("http://[::1]:")
        assert get(f"{place}/livez")[0] == 200


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as err:
        with err:
            return err.code, err.read()


def test_each_question_has_its_answer(node: Idle, store: JobStore, queue: WorkQueue) -> None:
    with serve("127.0.0.1:0", node, store, queue) as place:
        assert get(f"{place}/livez")[0] == 200
        assert get(f"{place}/readyz") == (200, b"1 worker processes beat\n")
        node.beating = False
        assert get(f"{place}/readyz") == (503, b"0 worker processes beat\n")
        assert get(f"{place}/secrets")[0] == 404


def test_a_scrape_is_quick(node: Idle, store: JobStore, queue: WorkQueue) -> None:
    for number in range(20):
        store.create(job_spec(job_id=f"job-{number}"))
    metrics(node, store, queue)
    start = time.perf_counter()
    for _ in range(10):
        metrics(node, store, queue)
    assert (time.perf_counter() - start) / 10 < 0.1


@pytest.mark.slow
def test_a_daemon_counts_what_its_workers_do(terminal: Terminal, digits: Path, scenes: Path, tmp_path: Path) -> None:
    daemon = terminal.start("worker", "--http", "127.0.0.1:0")
    assert daemon.stderr is not None
    place = ""
    while not place:
        line = daemon.stderr.readline()
        assert line, "the daemon has ended"
        place = line.partition("at=")[2].strip().removesuffix("/metrics")
    wait_for(lambda: get(f"{place}/readyz")[0] == 200, "a worker that beats")
    outcome = terminal.here("submit", scenes, "--model", digits, "-o", tmp_path / "out", "--wait")
    assert outcome.code == 0, outcome.err
    found = wait_for(
        lambda: (seen := samples(get(f"{place}/metrics")[1])).get("trtjob_shards_total") == 1 and seen,
        "the shard to be counted, which is after its images",
    )
    assert found["trtjob_images_total{ok}"] == 12
    assert found["trtjob_batches_total"] == 12
    assert found["trtjob_stage_seconds_total{infer}"] > 0
    assert found["trtjob_jobs{done}"] == 1


@pytest.fixture
def scenes() -> Path:
    return Path(__file__).parents[2] / "examples" / "digits" / "scenes"
