"""A web address hears of a job's end, once, signed; and none that is not public."""

import hashlib
import hmac
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from samples import job_spec
from tls_proxy import tls_proxy, trusted_context

from trtjob.config import Settings
from trtjob.errors import ConfigError
from trtjob.jobs.states import JobState
from trtjob.queue import notifications
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import NOTICE, NOTICES, job_key
from trtjob.queue.leases import Lease
from trtjob.queue.notifications import LEASE_S, ask_for_notice, check_notify_url
from trtjob.queue.submit import cancel
from trtjob.queue.units import FINISH
from trtjob.web_connection import Refused, checked_address
from trtjob.worker import webhooks as worker_notify
from trtjob.worker.webhooks import TIMEOUT_S, send_due

JOB = job_spec().job_id


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


def ended(store: JobStore, url: str) -> None:
    store.create(job_spec(), JobState.FINISHING)
    ask_for_notice(store, JOB, url)
    end(store)


def end(store: JobStore, state: JobState = JobState.DONE) -> None:
    """End the job as its finisher does."""
    store.update(JOB, state=JobState.FINISHING.value)
    assert store.move(JOB, state, finished_at=time.time(), message="", images=4, ok=3, failed=1)


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


def test_a_notice_that_is_not_taken_is_sent_again_later_under_the_same_name(
    store: JobStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "FIRST_PAUSE_S", 0.05)
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
    assert store.redis.scard(NOTICES) == 0


def test_nobody_at_the_address_is_tried_again_and_the_address_is_in_no_log(
    store: JobStore, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    ended(store, "http://localhost:1/hook?token=hush")
    with caplog.at_level(logging.DEBUG):
        assert send_due(store, settings) == 0
    assert store.redis.scard(NOTICES) == 1
    assert all("hush" not in str(vars(record)) for record in caplog.records if record.name.startswith("trtjob"))


def test_an_address_that_is_gone_is_not_tried_again(store: JobStore, settings: Settings) -> None:
    with listener(410) as (url, _):
        ended(store, url)
        send_due(store, settings)
    assert store.redis.scard(NOTICES) == 0


def test_a_notice_is_given_up_after_a_day(store: JobStore, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "GIVE_UP_S", 0.0)
    monkeypatch.setattr(notifications, "FIRST_PAUSE_S", 0.0)
    with listener(500) as (url, _):
        ended(store, url)
        for _ in range(3):
            send_due(store, settings)
            time.sleep(0.01)
    assert store.redis.scard(NOTICES) == 0


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "0.0.0.0", "10.1.2.3", "192.168.0.1", "172.16.0.1", "100.64.0.1"),
        *("224.0.0.1", "255.255.255.255", "::1", "::", "fd00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "2002:7f00:1::", "2002:808:808::"),
        *("::127.0.0.1", "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::7f00:1", "fec0::1"),
        *("2001::1", "192.88.99.1", "192.0.0.8", "192.0.0.170", "198.18.0.1", "240.0.0.1", "100::1", "2001:db8::1"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(Refused, match="no public address"):
        checked_address("host", [address], allow_local=False, setting="X")
    assert checked_address("host", [address], allow_local=True, setting="X") == address


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "169.254.1.1", "fe80::1%eth0", "fd00:ec2::254", "100.100.100.200"),
        *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"),
    ],
)
@pytest.mark.parametrize("allow_local", [False, True])
def test_where_clouds_give_credentials_is_never_asked(address: str, *, allow_local: bool) -> None:
    with pytest.raises(Refused, match="it is never asked"):
        checked_address("host", [address], allow_local=allow_local, setting="X")


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "2a00::1"])
def test_a_public_address_is_taken(address: str) -> None:
    assert checked_address("host", [address], allow_local=False, setting="X") == address


def test_a_name_with_one_address_that_is_not_public_is_refused() -> None:
    with pytest.raises(Refused):
        checked_address("host", ["93.184.215.14", "127.0.0.1"], allow_local=False, setting="X")
    assert checked_address("host", ["93.184.215.14"], allow_local=False, setting="X") == "93.184.215.14"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_not_followed(store: JobStore, settings: Settings, status: int) -> None:
    with listener(status, 200) as (url, heard):
        ended(store, url)
        assert send_due(store, settings) == 0
    assert len(heard) == 1


def test_a_name_that_leads_to_this_machine_is_refused_before_a_connection_is_made(store: JobStore) -> None:
    with listener(200) as (url, heard):
        ended(store, f"http://hooks.example:{urlsplit(url).port}/hook")
        assert send_due(store, Settings(), lambda _host, _port: ["127.0.0.1"]) == 0
    assert heard == []
    assert store.redis.scard(NOTICES) == 0, "it is not tried again"


def test_the_connection_goes_to_the_address_that_was_checked(store: JobStore, settings: Settings) -> None:
    answers = [["127.0.0.1"], ["192.0.2.1"]]  # a name that leads elsewhere as soon as it was asked for
    with listener(200) as (url, heard):
        ended(store, f"http://hooks.invalid:{urlsplit(url).port}/hook")
        assert send_due(store, settings, lambda _host, _port: answers.pop(0)) == 1
    assert len(heard) == len(answers) == 1


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "[::1]", "0"])
def test_no_way_to_write_this_machine_is_let_through(store: JobStore, host: str) -> None:
    ended(store, f"http://{host}:9/hook")
    send_due(store, Settings())
    assert store.redis.scard(NOTICES) == 0


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://host/x", "file:///etc/passwd", "host/x", "https://", "https:///x", "", "//host/x", "http:host/x"),
        *("http://host:99999/x", "http://host:0/x", "http://host:-1/x", "http://host:http/x", "http://host: 80/x"),
        *("http://[::1/x", "http://::1/x", "http://[hello]/x", "http://[127.0.0.1]/x", "http://[fe80::1%25eth0]/x"),
        *(
            "http://ho st/x",
            "http://host/a b",
            "http://host/\n",
            "http://host/\tx",
            " http://host/",
            "http://host/\x00",
        ),
        *(
            "http://a..b/",
            "http://.host/",
            "http://-host/",
            f"http://{'a' * 64}/",
            f"http://{'ä' * 60}/",
            "http://a,b/",
        ),
        *(f"http://{'a.' * 140}b/", "http://host/" + "x" * 2100, "http://host\\evil/", "http://\u2100.example/"),
        *("http://host/ä", "http://host/?q=ä", "http://host/\udcff", "http://\udcff/", "http://%zz/"),
        *(
            "https://me:hush@host/",
            "https://me@host/",
            "https://@host/",
            "https://:hush@host:1/x",
            "http://me:hu/sh@host",
        ),
    ],
)
def test_what_is_no_web_address_is_refused_with_what_may_be_shown_of_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"--notify") as caught:
        check_notify_url(url)
    message = str(caught.value)
    assert "hu" not in message.replace("https://hooks.example/trtjob", "")
    assert message.isprintable()
    assert len(message) < 500


def test_the_message_names_the_host_the_fault_and_what_is_expected() -> None:
    with pytest.raises(ConfigError) as caught:
        check_notify_url("http://example.com:99999/x?token=hush")
    said = "--notify 'http://example.com:99999/...': its port must be a number from 1 to 65535; expected a web address"
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("url", "host", "header"),
    [
        ("http://example.com", "example.com", "example.com"),
        ("HTTPS://Example.com:65535/a%20b?c=d#e", "example.com", "example.com:65535"),
        ("http://bücher.example/", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("http://[::1]:8080/x", "::1", "[::1]:8080"),
        ("http://127.0.0.1/x", "127.0.0.1", "127.0.0.1"),
        ("http://my_hook:9/x", "my_hook", "my_hook:9"),
        ("http://host./x", "host.", "host."),
    ],
)
def test_what_is_a_web_address_is_taken(url: str, host: str, header: str) -> None:
    assert check_notify_url(url) == url
    address = notifications.address_from(url)
    assert (address.host, address.header) == (host, header)


@pytest.mark.parametrize(
    "url",
    ["http://example.com:99999/x", "http://[::1", "http://a..b/", "http://localhost:1/\udcff", "", "http://x\n:1/"],
)
def test_an_address_that_cannot_be_one_fails_alone(store: JobStore, settings: Settings, url: str) -> None:
    """It may have been written by an earlier version, or by anybody."""
    with listener(200) as (good, heard):
        store.create(job_spec(job_id="a-bad-one"), JobState.RUNNING)
        store.redis.hset(job_key("a-bad-one"), "notify", url.encode(errors="surrogateescape"))
        store.fail("a-bad-one", "for the test")
        ended(store, good)
        assert send_due(store, settings) == 1
        assert send_due(store, settings) == 0
    assert len(heard) == 1
    assert store.redis.scard(NOTICES) == 0


@pytest.mark.parametrize(
    "rubbish",
    [
        pytest.param({b"at": b"soon"}, id="at"),
        pytest.param({b"spec": b"\xff"}, id="no-utf-8"),
        pytest.param({b"spec": b"{}"}, id="no-spec"),
        pytest.param({b"state": b"running"}, id="no-end"),
        pytest.param({b"tries": b"9" * 400}, id="tries"),
        pytest.param({b"since": b"nan"}, id="since"),
        pytest.param({b"finished_at": b"-1e999"}, id="finished-at"),
        pytest.param({b"images": b"150000000000000"}, id="images"),
        pytest.param({b"job_id": b"another"}, id="job"),
        pytest.param({b"message": b"\xff" * 100}, id="message"),
    ],
)
def test_a_notice_that_is_rubbish_hurts_no_other(
    store: JobStore, settings: Settings, rubbish: dict[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with listener(200) as (url, heard):
        store.create(job_spec(job_id="a-bad-one"), JobState.RUNNING)
        ask_for_notice(store, "a-bad-one", url)
        store.fail("a-bad-one", "for the test")
        (member,) = store.redis.smembers(NOTICES)
        store.redis.hset(NOTICE + member.decode(), mapping=rubbish)
        ended(store, url)
        for _ in range(3):
            send_due(store, settings)
    assert JOB in {json.loads(body)["job_id"] for _, _, body in heard}
    assert store.redis.scard(NOTICES) == 0
    assert caplog.text.count("skipped what is not trtjob's in Redis") <= 1


@pytest.mark.parametrize("member", [b"\xff\xfe", b"", b"photos-1234abcd", b"0" * 16, b"x" * 100_000])
def test_a_name_that_is_no_notice_goes(store: JobStore, settings: Settings, member: bytes) -> None:
    store.redis.sadd(NOTICES, member)
    assert send_due(store, settings) == 0
    assert store.redis.scard(NOTICES) == 0


def test_a_key_of_another_kind_is_said_once_and_jobs_end_all_the_same(
    store: JobStore, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    store.redis.set(NOTICES, "rubbish")
    ended(store, "http://localhost:1/")
    for _ in range(3):
        assert send_due(store, settings) == 0
    assert store.state(JOB) == JobState.DONE
    told = [record for record in caplog.records if vars(record).get("key") == NOTICES]
    assert len(told) <= 1


def test_a_notice_whose_record_is_of_another_kind_goes(store: JobStore, settings: Settings) -> None:
    ended(store, "http://localhost:1/")
    (member,) = store.redis.smembers(NOTICES)
    store.redis.delete(NOTICE + member.decode())
    store.redis.rpush(NOTICE + member.decode(), "rubbish")
    assert send_due(store, settings) == 0
    assert store.redis.scard(NOTICES) == 0


def test_the_end_that_a_finisher_makes_is_told_once(store: JobStore, settings: Settings) -> None:
    with listener(200) as (url, heard):
        store.create(job_spec(), JobState.FINISHING)
        ask_for_notice(store, JOB, url)
        lease = store.claim(JOB, FINISH, "worker-1", 30)
        assert isinstance(lease, Lease)
        for _ in range(2):
            assert store.end(lease, JobState.DONE, epoch=0, detail="4 ok", finished_at=time.time(), images=4, ok=4)
        assert send_due(store, settings) == 1
        assert send_due(store, settings) == 0
    assert json.loads(heard[0][2])["ok"] == 4


@pytest.mark.parametrize("how", ["fail", "cancel"])
def test_an_end_before_its_time_is_told(store: JobStore, settings: Settings, how: str) -> None:
    with listener(200) as (url, heard):
        store.create(job_spec())
        ask_for_notice(store, JOB, url)
        assert store.fail(JOB, "no disk") if how == "fail" else cancel(store, JOB)
        assert send_due(store, settings) == 1
    assert json.loads(heard[0][2])["state"] == ("failed" if how == "fail" else "cancelled")


# -- one end, one notice -----------------------------------------------------------------------------------------------


def test_a_stop_by_the_user_is_no_end_that_is_told(store: JobStore, settings: Settings) -> None:
    with listener(200) as (url, heard):
        store.create(job_spec())
        ask_for_notice(store, JOB, url)
        store.move(JOB, JobState.STOPPED)
        send_due(store, settings)
        assert heard == []
        store.move(JOB, JobState.QUEUED)
        cancel(store, JOB)
        send_due(store, settings)
        assert len(heard) == 1


def test_each_end_has_an_id_and_a_notice_of_its_own(store: JobStore, settings: Settings) -> None:
    with listener(200) as (url, heard):
        for state in (JobState.DONE, JobState.DONE, JobState.DONE_WITH_ERRORS):
            store.create(job_spec())
            ask_for_notice(store, JOB, url)
            end(store, state)
            assert send_due(store, settings) == 1
    assert len({headers["X-Trtjob-Delivery"] for _, headers, _ in heard}) == 3
    assert [json.loads(body)["state"] for _, _, body in heard] == ["done", "done", "done_with_errors"]


def test_an_end_is_told_as_it_was_also_when_the_job_has_gone_on(store: JobStore, settings: Settings) -> None:
    with listener(200) as (url, heard):
        ended(store, url)
        store.move(JOB, JobState.QUEUED, message="", finished_at="", images=0, ok=0, failed=0)
        ask_for_notice(store, JOB, url)
        assert send_due(store, settings) == 1
        assert send_due(store, settings) == 0, "the next end has not come"
        end(store, JobState.DONE_WITH_ERRORS)
        assert send_due(store, settings) == 1
    first, second = (json.loads(body) for _, _, body in heard)
    assert (first["state"], first["ok"]) == ("done", 3)
    assert second["state"] == "done_with_errors"


def test_an_end_before_somebody_asked_is_not_announced(store: JobStore, settings: Settings) -> None:
    with listener(200) as (url, heard):
        store.create(job_spec(), JobState.FINISHING)
        end(store)
        ask_for_notice(store, JOB, url)
        assert send_due(store, settings) == 0
    assert heard == []


def test_a_forgotten_job_is_told_of_and_leaves_nothing(store: JobStore, settings: Settings) -> None:
    with listener(200) as (url, heard):
        ended(store, url)
        store.forget(JOB)
        assert send_due(store, settings) == 1
    assert len(heard) == 1
    assert store.redis.keys(job_key("*")) == store.redis.keys(f"{NOTICE}*") == []


def test_a_notice_that_is_being_sent_is_sent_by_nobody_else(store: JobStore, settings: Settings) -> None:
    is_sending, may_go_on = threading.Event(), threading.Event()

    def resolve(_host: str, _port: int) -> list[str]:
        is_sending.set()
        may_go_on.wait(TIMEOUT_S)
        return ["127.0.0.1"]

    with listener(200) as (url, heard):
        ended(store, url)
        sender = threading.Thread(target=send_due, args=(store, settings, resolve))
        sender.start()
        assert is_sending.wait(20)
        assert send_due(store, settings) == 0
        may_go_on.set()
        sender.join()
        assert send_due(store, settings) == 0
    assert len(heard) == 1
    assert 3 * TIMEOUT_S < LEASE_S, "a send may outlast its lease"


def test_who_took_a_notice_too_long_ago_cannot_put_it_off(
    store: JobStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "LEASE_S", 0.0)
    ended(store, "http://localhost:1/")
    (sleeper,) = notifications.take_due(store)
    (_,) = notifications.take_due(store)
    notifications.put_off(store, sleeper, "too late")
    assert len(list(notifications.take_due(store))) == 1, "it was put off by who had lost it"


@pytest.mark.slow
def test_a_server_that_answers_a_byte_at_a_time_is_left(
    store: JobStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_notify, "TIMEOUT_S", 1.0)
    server = socket.create_server(("127.0.0.1", 0))
    has_left = threading.Event()

    def drip() -> None:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(0.1)
            try:
                while True:
                    connection.sendall(b"H")
                    with suppress(TimeoutError):
                        if not connection.recv(65536):
                            break
            except OSError:
                pass
        has_left.set()

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    ended(store, f"http://localhost:{server.getsockname()[1]}/")
    assert send_due(store, settings, lambda _host, _port: ["127.0.0.1"]) == 0
    assert has_left.wait(20)
    server.close()
    assert store.redis.scard(NOTICES) == 1


def test_a_name_server_that_does_not_answer_holds_nobody_up(
    store: JobStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_notify, "TIMEOUT_S", 0.2)
    for_ever = threading.Event()
    ended(store, "http://localhost:1/")
    assert send_due(store, settings, lambda _host, _port: [str(for_ever.wait())]) == 0
    for_ever.set()
    assert store.redis.scard(NOTICES) == 1


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context, whose authority this process trusts."""
    return trusted_context(tmp_path, monkeypatch)


def test_a_notice_goes_over_tls_to_who_can_show_that_name(
    store: JobStore, settings: Settings, tls: ssl.SSLContext
) -> None:
    with listener(200) as (url, heard), tls_proxy(tls, urlsplit(url).port or 0) as port:
        ended(store, f"https://localhost:{port}/hook")
        assert send_due(store, settings) == 1
        store.create(job_spec(job_id="another-1234abcd"))
        ask_for_notice(store, "another-1234abcd", f"https://127.0.0.1:{port}/hook")
        store.fail("another-1234abcd", "for the test")
        assert send_due(store, settings) == 0, "its certificate is not for that name"
    assert [path for path, _, _ in heard] == ["/hook"]
    assert heard[0][1]["Host"] == f"localhost:{port}"
