"""A web address hears of a job's end, once, signed; and none that is not public."""

import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis
from samples import job_spec

from trtjob.config import Settings
from trtjob.errors import ConfigError
from trtjob.jobs import notify
from trtjob.jobs.notify import WAITING, ask_for_notice, check_notify_url
from trtjob.jobs.states import JobState
from trtjob.jobs.store import JobStore
from trtjob.worker.notify import Refused, checked_address, send_due

JOB = job_spec().job_id


@pytest.fixture
def store(redis: Redis) -> JobStore:
    return JobStore(redis)


@pytest.fixture
def settings() -> Settings:
    return Settings(notify_secret=SecretStr("sesame"), notify_allow_local=True)


@contextmanager
def listener(*statuses: int) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """A web server that answers with these statuses, the last again and again; and what it heard."""
    heard: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((self.path, dict(self.headers), body))
            self.send_response(statuses[min(len(heard), len(statuses)) - 1])
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}/hook?token=hush", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ended(store: JobStore, url: str, state: JobState = JobState.DONE) -> None:
    store.create(job_spec())
    ask_for_notice(store, JOB, url)
    store.update(JOB, state=state.value, finished_at=time.time(), images=4, ok=3, failed=1)


def test_a_notice_says_how_the_job_ended_and_is_signed(store: JobStore, settings: Settings) -> None:
    with listener(200) as (url, heard):
        ended(store, url)
        assert send_due(store, settings) == 1
        assert send_due(store, settings) == 0
    ((path, headers, body),) = heard
    assert path == "/hook?token=hush"
    document = json.loads(body)
    assert (document["job_id"], document["state"], document["failed"]) == (JOB, "done", 1)
    stamp, signature = headers["X-Trtjob-Signature"].split(",")
    expected = hmac.new(b"sesame", stamp.removeprefix("t=").encode() + b"." + body, hashlib.sha256).hexdigest()
    assert signature == f"v1={expected}"
    assert abs(int(stamp.removeprefix("t=")) - time.time()) < 5


def test_without_a_secret_there_is_no_signature(store: JobStore) -> None:
    with listener(204) as (url, heard):
        ended(store, url)
        send_due(store, Settings(notify_allow_local=True))
    assert "X-Trtjob-Signature" not in heard[0][1]


def test_a_job_that_runs_has_no_notice(store: JobStore, settings: Settings) -> None:
    with listener(200) as (url, heard):
        store.create(job_spec())
        ask_for_notice(store, JOB, url)
        assert send_due(store, settings) == 0
    assert heard == []
    assert store.redis.scard(WAITING) == 1


def test_a_notice_that_is_not_taken_is_sent_again_later_under_the_same_name(
    store: JobStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "FIRST_PAUSE_S", 0.05)
    with listener(500, 302, 200) as (url, heard):
        ended(store, url)
        assert send_due(store, settings) == 0
        assert send_due(store, settings) == 0, "it is not due yet"
        assert len(heard) == 1
        deadline = time.monotonic() + 10
        while len(heard) < 3 and time.monotonic() < deadline:
            send_due(store, settings)
            time.sleep(0.02)
    assert [path for path, _, _ in heard] == ["/hook?token=hush"] * 3, "a redirection is not followed"
    assert len({headers["X-Trtjob-Delivery"] for _, headers, _ in heard}) == 1
    assert store.redis.scard(WAITING) == 0


def test_nobody_at_the_address_is_tried_again_and_the_address_is_in_no_log(
    store: JobStore, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    ended(store, "http://localhost:1/hook?token=hush")
    with caplog.at_level(logging.DEBUG):
        assert send_due(store, settings) == 0
    assert store.redis.scard(WAITING) == 1
    assert all("hush" not in str(vars(record)) for record in caplog.records if record.name.startswith("trtjob"))


def test_an_address_that_is_gone_is_not_tried_again(store: JobStore, settings: Settings) -> None:
    with listener(410) as (url, _):
        ended(store, url)
        send_due(store, settings)
    assert store.redis.scard(WAITING) == 0


def test_a_notice_is_given_up_after_a_day(store: JobStore, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "GIVE_UP_S", 0.0)
    monkeypatch.setattr(notify, "FIRST_PAUSE_S", 0.0)
    with listener(500) as (url, _):
        ended(store, url)
        for _ in range(3):
            send_due(store, settings)
            time.sleep(0.01)
    assert store.redis.scard(WAITING) == 0


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "0.0.0.0", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1"),
        *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(Refused, match="no public address"):
        checked_address("host", [address], allow_local=False)
    assert checked_address("host", [address], allow_local=True) == address


def test_a_name_with_one_address_that_is_not_public_is_refused() -> None:
    with pytest.raises(Refused):
        checked_address("host", ["93.184.215.14", "127.0.0.1"], allow_local=False)
    assert checked_address("host", ["93.184.215.14"], allow_local=False) == "93.184.215.14"


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "[::1]", "0"])
def test_no_way_to_write_this_machine_is_let_through(store: JobStore, host: str) -> None:
    ended(store, f"http://{host}:9/hook")
    send_due(store, Settings())
    assert store.redis.scard(WAITING) == 0


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///etc/passwd", "host/x", "https://", "https://me:hush@host/"])
def test_what_is_no_web_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_notify_url(url)
    assert "hush" not in str(caught.value)
