"""Thousands of damaged images and messages: each has its record or is parked, and the workers live as before."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import pytest
from chaos.valkey import Valkey
from converters.damage import damaged
from terminal import DIGITS, Terminal, job_folder, records, wait_for, worker_pids

from trtjob.errors import FailureKind
from trtjob.queue.keys import JOBS, job_key, queue_state_key, state_key
from trtjob.queue.rq_queue import RUN_UNIT

SEED = 20261101
MANY = pytest.param(2500, marks=pytest.mark.chaos)
KINDS = (".jpg", ".png", ".webp", ".bmp", ".tiff")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def peak_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3


def write_damaged_images(folder: Path, count: int) -> None:
    """Write damaged pictures of every kind, of 96 x 80 pixels."""
    folder.mkdir()
    y, x = np.mgrid[:80, :96]
    picture = np.stack([x * 2, y * 3, (x * y) % 256], 2).astype(np.uint8)
    whole = [cv2.imencode(suffix, picture)[1].tobytes() for suffix in KINDS]
    for number in range(count):
        kind = number % len(KINDS)
        data = damaged(whole[kind], np.random.default_rng([SEED, number]))
        (folder / f"{number:05d}{KINDS[kind]}").write_bytes(data)


@pytest.mark.parametrize("count", [500, MANY])
def test_every_damaged_image_has_its_record_and_the_worker_is_the_same_as_before(
    terminal: Terminal, digits: Path, tmp_path: Path, count: int
) -> None:
    write_damaged_images(tmp_path / "photos", count)
    command = ["run", str(tmp_path / "photos"), "--model", str(digits), "-o", str(tmp_path / "out")]
    running = terminal.start(*command, "--shard-size", f"{count // 20}")
    (pid,) = wait_for(lambda: worker_pids(running.pid), "the worker process")
    shards = tmp_path / "out"
    wait_for(lambda: len(list(shards.glob("*/shards/*.json"))) >= 5, "a quarter of the job", 60)
    early, pids = peak_mb(pid), [pid]
    while running.poll() is None:
        if found := worker_pids(running.pid):
            pids, late = found, peak_mb(found[0]) if found == [pid] else 0.0
        time.sleep(0.1)
    _, err = running.communicate()
    assert running.returncode == 1
    assert "Traceback" not in err
    written = records(job_folder(tmp_path / "out"))
    assert len(written) == count
    failures = Counter(record["error"]["kind"] for record in written.values() if "error" in record)
    assert failures[FailureKind.DECODE] > count / 4
    assert set(failures) <= {FailureKind.DECODE, FailureKind.TOO_LARGE}
    assert pids == [pid], "a damaged image has ended the worker process"
    assert late < 1.1 * early + 10


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey")
    server.start()
    yield server
    server.end()


FIELDS = ("created_at", "timeout", "meta", "origin", "status", "ttl", "retries_left")


def push_damaged_messages(valkey: Valkey, job_id: str, count: int) -> None:
    """Put messages into the queue that nobody of ours has written: wrong names, wrong records, none, huge ones."""
    chance, numbers = random.Random(SEED), np.random.default_rng(SEED)
    whole = json.dumps([RUN_UNIT, None, [job_id, "shard-00000"], {}]).encode()
    for number in range(count):
        names: list[bytes | str] = [
            f"{job_id}--shard-{chance.randrange(10**6):05d}--{number:08x}",
            f"{job_id}--plan--{number:08x}",
            f"{chance.randbytes(6).hex()}--finish--{number:08x}",
            f"convert--{number}--{number:08x}",
            "x" * chance.randrange(1, 2000),
            chance.randbytes(chance.randrange(1, 60)),
        ]
        name = chance.choice(names)
        valkey.client.rpush("rq:queue:trtjob", name)
        if chance.random() < 0.8 and isinstance(name, str):
            data = damaged(whole, numbers) if chance.random() < 0.7 else chance.randbytes(chance.randrange(300_000))
            fields: dict[Any, Any] = {"data": data, "created_at": "2026-01-01T00:00:00.000000Z", "status": "queued"}
            fields |= {
                chance.choice(FIELDS): chance.randbytes(chance.randrange(40)) for _ in range(chance.randrange(3))
            }
            valkey.client.hset(f"rq:job:{name}", mapping=fields)


@pytest.mark.parametrize("count", [500, MANY])
def test_a_worker_that_is_fed_rubbish_is_the_same_as_before_and_does_the_next_job(
    terminal: Terminal, digits: Path, valkey: Valkey, tmp_path: Path, count: int
) -> None:
    terminal.environment["TRTJOB_REDIS_URL"] = valkey.url
    submit = ["submit", str(DIGITS / "scenes"), "--model", str(digits), "--wait", "-o"]
    log = tmp_path / "log"
    with log.open("wb") as file, running_worker(terminal, file) as daemon:
        first = terminal.here(*submit, str(tmp_path / "first"))
        assert first.code == 0, first.err
        job_id = job_folder(tmp_path / "first").name
        (pid,) = worker_pids(daemon.pid)
        early = peak_mb(pid)
        push_damaged_messages(valkey, job_id, count)
        wait_for(lambda: valkey.client.llen("rq:queue:trtjob") == 0, "the rubbish to be gone", 120)
        second = terminal.here(*submit, str(tmp_path / "second"))
        assert second.code == 0, second.err
        assert worker_pids(daemon.pid) == [pid], "a message has ended the worker process"
        assert peak_mb(pid) < 1.1 * early + 10
    assert len(records(job_folder(tmp_path / "second"))) == 12
    assert json.loads((tmp_path / "first" / job_id / "_SUCCESS.json").read_text())["listed"] == 12
    text = log.read_text(errors="replace")
    assert "Traceback" not in text
    assert text.count(" warning ") < 1.5 * count
    assert max(map(len, text.splitlines())) < 1000


RUBBISH = (b"\xff\xfe", b"rubbish", b"150000000", b"")


def spoil(client: Any, key: bytes, value: bytes) -> Iterator[None]:
    """Replace a key, and each of its fields, in turn; yield after each, and put back what was there."""
    kind, saved = client.type(key), client.dump(key)
    if kind == b"hash":
        for field in client.hkeys(key):
            client.hset(key, field, value)
            yield
            client.restore(key, 0, saved, replace=True)
    client.delete(key)
    client.rpush(key, value) if kind != b"list" else client.set(key, value)
    yield
    client.delete(key)
    client.restore(key, 0, saved, replace=True)


@pytest.mark.timeout(540)
def test_a_daemon_whose_keys_are_spoilt_in_turn_goes_on_and_does_the_next_job(
    terminal: Terminal, digits: Path, valkey: Valkey, tmp_path: Path
) -> None:
    terminal.environment["TRTJOB_REDIS_URL"] = valkey.url
    client: Any = valkey.client
    submit = ["submit", str(DIGITS / "scenes"), "--model", str(digits), "-o"]
    assert terminal.here(*submit, str(tmp_path / "first"), TRTJOB_QUEUE="nobody").code == 0
    (job_id,) = map(bytes.decode, client.zrange(JOBS, 0, -1))
    client.hset(job_key(job_id), mapping={"queue": "trtjob", "state": "running", "planned": "0"})
    client.sadd(queue_state_key("trtjob", "running"), job_id)
    client.sadd(state_key("running"), job_id)
    log = tmp_path / "log"
    with log.open("wb") as file, running_worker(terminal, file) as daemon:
        (pid,) = wait_for(lambda: worker_pids(daemon.pid), "the worker process")
        wait_for(lambda: client.smembers("trtjob:daemons"), "the daemon's report", 60)
        keys = sorted({*client.keys("trtjob:*"), *client.keys("rq:*")})
        for value in RUBBISH:
            for key in keys:
                if client.exists(key) and client.ttl(key) < 0:
                    for _ in spoil(client, key, value):
                        time.sleep(0.1)
            seen = terminal.here("status", "--json")
            assert seen.code == 0, seen.err
            assert json.loads(seen.out)["schema_version"] == 1
            assert daemon.poll() is None
        second = terminal.here(*submit, str(tmp_path / "second"), "--wait")
        assert second.code == 0, second.err
        assert worker_pids(daemon.pid) == [pid], "what stood in Redis has ended the worker process"
    assert len(records(job_folder(tmp_path / "second"))) == 12
    text = log.read_text(errors="replace")
    assert "Traceback" not in text, text[-3000:]
    assert "server is away" not in text
    lines = [line.partition(" ")[2] for line in text.splitlines() if "skipped what is not" in line]
    assert len(lines) == len(set(lines))


@contextmanager
def running_worker(terminal: Terminal, log: IO[bytes]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a daemon whose log is read by nobody until it has ended: a pipe would be full."""
    command = [sys.executable, "-m", "trtjob", "worker", "--threads", "1"]
    environment = {**os.environ, "TRTJOB_HOME": str(terminal.home), **terminal.environment}
    daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield daemon
        daemon.terminate()
        assert daemon.wait(30) == 0
    finally:
        daemon.kill()
        daemon.wait()
