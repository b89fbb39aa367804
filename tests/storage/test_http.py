"""Images at web addresses: fetched whole or refused with the reason, and from nowhere that is not public."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path

import pytest
from tls_proxy import tls_proxy, trusted_context
from web_server import WebServer, web_server

from trtjob import web_connection
from trtjob.errors import FailureKind, ImageError, StorageError
from trtjob.storage import http, open_images
from trtjob.storage.http import HttpStorage
from trtjob.storage.listing import Entry
from trtjob.web_connection import addresses_of, checked_address

DATE = "Sun, 01 Nov 2026 12:00:00 GMT"


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Try again at once, and know nothing of other tests' servers."""
    monkeypatch.setattr(http, "pause_s", lambda _tries: 0.01)
    yield
    http.forget_hosts()


def storage_of(server: WebServer, on_trouble: Callable[[str], None] = lambda _trouble: None) -> HttpStorage:
    return HttpStorage(server.url, on_trouble=on_trouble, allow_local=True)


def failure(storage: HttpStorage, key: str) -> tuple[FailureKind, str]:
    with pytest.raises(ImageError) as caught:
        storage.fetch(Entry(key, 0, ""))
    return caught.value.kind, str(caught.value)


def test_an_image_is_fetched_by_its_address(server: WebServer) -> None:
    server.put("/a/b%20c.jpg?x=1", b"picture", headers={"ETag": '"e1"', "Last-Modified": DATE})
    storage = storage_of(server)
    entry = storage.entry("a/b c.jpg?x=1")
    assert entry == Entry("a/b c.jpg?x=1", 7, "e1")
    assert entry.modified_s == 1793534400
    assert storage.fetch(entry) == asyncio.run(storage.afetch(entry)) == b"picture"
    assert storage.place("a.jpg") == f"{server.url}/a.jpg"


@pytest.mark.parametrize(
    ("headers", "etag"),
    [
        pytest.param({"ETag": 'W/"e"'}, 'W/"e', id="an etag"),
        pytest.param({"Last-Modified": DATE}, f"{DATE} 7", id="a date"),
        pytest.param({"Last-Modified": "once"}, "once 7", id="no date"),
        pytest.param({}, "7", id="a size"),
        pytest.param({"Content-Length": "", "Connection": "close"}, "unknown", id="nothing"),
    ],
)
def test_what_tells_that_an_image_has_changed(server: WebServer, headers: dict[str, str], etag: str) -> None:
    server.put("/a.jpg", b"picture", headers=headers)
    assert storage_of(server).entry("a.jpg").etag == etag
    assert storage_of(server).fetch(Entry("a.jpg", 0, "")) == b"picture"


def test_a_server_that_answers_get_alone_is_asked_so(server: WebServer) -> None:
    for _ in range(2):
        server.put("/a.jpg", b"", status=405)
        server.put("/a.jpg", b"picture")
    assert storage_of(server).entry("a.jpg").size_bytes == 7
    assert server.heard == ["HEAD /a.jpg", "GET /a.jpg"]


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (404, FailureKind.MISSING, "not there: 404"),
        (410, FailureKind.MISSING, "not there: 410"),
        (401, FailureKind.READ, "refuses it: status 401"),
        (403, FailureKind.READ, "refuses it: status 403"),
        (304, FailureKind.READ, "refuses it: status 304"),
    ],
)
def test_what_a_server_refuses_is_that_images_failure(
    server: WebServer, status: int, kind: FailureKind, told: str
) -> None:
    server.put("/a.jpg", b"", status=status)
    storage = storage_of(server)
    assert storage.entry("a.jpg") == Entry("a.jpg", 0, "")
    server.heard.clear()
    found, message = failure(storage, "a.jpg")
    assert (found, server.heard) == (kind, ["GET /a.jpg"])
    assert told in message


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(server: WebServer, status: int) -> None:
    for _ in range(3):
        server.put("/a.jpg", b"", status=status)
    server.put("/a.jpg", b"picture")
    told: list[str] = []
    assert storage_of(server, told.append).fetch(Entry("a.jpg", 0, "")) == b"picture"
    assert server.heard == ["GET /a.jpg"] * 4
    assert set(told) == {f"{server.url}: status {status}"}


@pytest.mark.slow
def test_a_server_that_asks_to_wait_is_not_asked_before(server: WebServer) -> None:
    """Nor for another of its images: it is the server that is busy."""
    server.put("/a.jpg", b"", 503, {"Retry-After": "1"})
    server.put("/a.jpg", b"picture")
    server.put("/b.jpg", b"picture")
    storage, told = storage_of(server), list[str]()
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(storage.fetch, Entry("a.jpg", 0, ""))
        while not http.hosts[server.url.removeprefix("http://")].busy_until:
            time.sleep(0.01)
        assert storage_of(server, told.append).fetch(Entry("b.jpg", 0, "")) == waiting.result() == b"picture"
    assert time.monotonic() - began > 1
    assert set(told) == {f"{server.url}: it asks to wait"}


def test_a_server_may_ask_to_wait_until_a_date() -> None:
    assert 8 < http.retry_after_s(formatdate(time.time() + 10, usegmt=True)) <= 10


def test_an_image_is_given_up_whose_server_asks_for_too_long_a_wait(server: WebServer) -> None:
    server.put("/a.jpg", b"", 429, {"Retry-After": "3600"})
    told = "it cannot be fetched: status 429, and asks to wait for 3,600 s"
    assert failure(storage_of(server), "a.jpg") == (FailureKind.READ, told)
    assert server.heard == ["GET /a.jpg"]


@pytest.mark.parametrize("after", ["", "soon", "-5", "Sun, 01 Nov 2020 12:00:00 GMT", "Mon, 99 Foo 99999 99:99:99 GMT"])
def test_a_wait_that_says_nothing_is_the_usual_one(server: WebServer, after: str) -> None:
    server.put("/a.jpg", b"", 503, {"Retry-After": after})
    server.put("/a.jpg", b"picture")
    assert storage_of(server).fetch(Entry("a.jpg", 0, "")) == b"picture"


def test_requests_follow_one_another_over_one_connection(server: WebServer) -> None:
    server.put("/a.jpg", b"", status=302, headers={"Location": "/b.jpg"})
    server.put("/b.jpg", b"picture")
    storage = storage_of(server)
    for _ in range(5):
        assert storage.fetch(storage.entry("a.jpg")) == b"picture"
    assert failure(storage, "gone.jpg")[0] is FailureKind.MISSING
    assert (len(server.heard), server.connections) == (21, 1)


def test_a_server_that_ends_its_connections_is_asked_over_new_ones(server: WebServer) -> None:
    server.put("/a.jpg", b"picture", headers={"Connection": "close"})
    storage = storage_of(server)
    assert [storage.fetch(Entry("a.jpg", 0, "")) for _ in range(3)] == [b"picture"] * 3
    assert server.connections == 3


@pytest.mark.parametrize("is_at_once", [True, False])
def test_a_kept_connection_that_was_hung_up_is_no_failure(monkeypatch: pytest.MonkeyPatch, *, is_at_once: bool) -> None:
    monkeypatch.setattr(http, "TRIES", 1)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\npicture"
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer_each_once() -> None:
            for _ in range(2):
                client, _address = listening.accept()
                with client:
                    client.recv(1 << 16)
                    client.sendall(answer)
                    if not is_at_once:
                        client.recv(1 << 16)  # and no answer

        thread = threading.Thread(target=answer_each_once)
        thread.start()
        storage = storage_of(WebServer(listening.getsockname()[1]))
        assert [storage.fetch(Entry("a.jpg", 0, "")) for _ in range(2)] == [b"picture"] * 2
        http.forget_hosts()
        thread.join()


def test_a_connection_to_this_network_serves_nobody_who_may_not_ask_there(server: WebServer) -> None:
    server.put("/a.jpg", b"picture")
    assert storage_of(server).fetch(Entry("a.jpg", 0, "")) == b"picture"
    assert failure(HttpStorage(server.url, on_trouble=lambda _: None), "a.jpg")[1].startswith("it is not fetched")


def test_an_answer_that_breaks_off_is_asked_for_again(server: WebServer) -> None:
    server.put("/a.jpg", b"pict", headers={"Content-Length": "7", "Connection": "close"})
    server.put("/a.jpg", b"picture")
    assert storage_of(server).fetch(Entry("a.jpg", 0, "")) == b"picture"


@pytest.mark.slow
def test_a_server_that_always_fails_costs_its_other_images_no_time(server: WebServer) -> None:
    storage = storage_of(server)
    for number in range(4):
        server.put(f"/{number}.jpg", b"", status=503)
    for number in range(3):
        assert failure(storage, f"{number}.jpg") == (FailureKind.READ, "it cannot be fetched: status 503")
    server.heard.clear()
    assert failure(storage, "3.jpg")[1] == "it cannot be fetched: status 503, as for others of this server"
    assert server.heard == []
    assert storage.entry("3.jpg") == Entry("3.jpg", 0, "")


def test_a_server_that_is_not_there_is_said() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        storage = HttpStorage(
            f"http://127.0.0.1:{unheard.getsockname()[1]}", on_trouble=lambda _: None, allow_local=True
        )
        assert failure(storage, "a.jpg") == (FailureKind.READ, "it cannot be fetched: Connection refused")


def test_an_answer_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(http, "TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        storage = HttpStorage(
            f"http://127.0.0.1:{silent.getsockname()[1]}", on_trouble=lambda _: None, allow_local=True
        )
        kind, told = failure(storage, "a.jpg")
    assert kind is FailureKind.READ
    assert told.removeprefix("it cannot be fetched: ") in ("no answer in time", "timed out", "the connection broke off")


def test_a_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(http, "TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            client, _ = listening.accept()
            with client, suppress(OSError):
                client.recv(1 << 16)
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                for _ in range(60):
                    client.sendall(b"x")
                    threading.Event().wait(0.02)

        thread = threading.Thread(target=drip)
        thread.start()
        storage = storage_of(WebServer(listening.getsockname()[1]))
        assert failure(storage, "a.jpg")[1] == "it cannot be fetched: the answer comes too slowly"
        thread.join()


@pytest.mark.parametrize("length", ["8", ""])
def test_a_file_that_is_too_large_is_not_taken_in(
    server: WebServer, monkeypatch: pytest.MonkeyPatch, length: str
) -> None:
    monkeypatch.setattr(http, "MOST_BYTES", 7)
    server.put("/a.jpg", b"8 bytes.", headers={"Content-Length": length, "Connection": "close"})
    server.put("/b.jpg", b"7 bytes")
    assert failure(storage_of(server), "a.jpg")[0] is FailureKind.TOO_LARGE
    assert storage_of(server).fetch(Entry("b.jpg", 0, "")) == b"7 bytes"


def test_images_are_fetched_in_bounded_numbers(server: WebServer) -> None:
    server.slow_s = 0.02
    for number in range(40):
        server.put(f"/{number}.jpg", b"x")
    storage = storage_of(server)

    async def all_of_them() -> list[bytes]:
        return await asyncio.gather(*(storage.afetch(Entry(f"{number}.jpg", 0, "")) for number in range(40)))

    assert len(asyncio.run(all_of_them())) == 40
    with ThreadPoolExecutor(32) as pool:
        assert len(list(pool.map(storage.entry, (f"{number}.jpg" for number in range(40))))) == 40
    assert 1 < server.most <= http.AT_ONCE


def test_who_is_told_of_a_wait_may_end_it(server: WebServer) -> None:
    server.put("/a.jpg", b"", status=503)

    class Left(Exception):
        pass

    def leave(_trouble: str) -> None:
        raise Left

    with pytest.raises(Left):
        storage_of(server, leave).fetch(Entry("a.jpg", 1, ""))


@pytest.mark.parametrize("key", ["../a.jpg", "x/../../a.jpg", "/a.jpg", "./a.jpg"])
def test_a_key_that_leaves_its_address_is_refused(key: str) -> None:
    with pytest.raises(StorageError, match="leaves https://host/photos"):
        open_images("https://host/photos").fetch(Entry(key, 0, ""))


def test_a_web_address_cannot_be_listed() -> None:
    storage = open_images("https://host/photos")
    assert isinstance(storage, HttpStorage)
    storage.check_root()
    with pytest.raises(StorageError, match=r"https://host/photos cannot be listed: name its images in a list"):
        storage.images()


# -- where it leads ----------------------------------------------------------------------------------------------------


def test_an_address_that_leads_on_is_followed(server: WebServer) -> None:
    server.put("/a.jpg", b"", status=302, headers={"Location": "/x/b%20.jpg"})
    server.put("/x/b%20.jpg", b"", status=308, headers={"Location": f"{server.url}/c.jpg"})
    server.put("/c.jpg", b"picture")
    assert storage_of(server).fetch(Entry("a.jpg", 0, "")) == b"picture"


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("/a.jpg", "more than 5 times"),
        ("ftp://host/a.jpg", "no web address"),
        ("file:///etc/passwd", "no web address"),
        ("http://user:secret@host/", "no web address: give no user and password"),
    ],
)
def test_an_address_that_leads_astray_is_not_fetched(server: WebServer, target: str, told: str) -> None:
    server.put("/a.jpg", b"", status=301, headers={"Location": target})
    kind, message = failure(storage_of(server), "a.jpg")
    assert kind is FailureKind.READ
    assert told in message
    assert "secret" not in message


def test_a_machine_that_is_not_public_is_not_asked(server: WebServer) -> None:
    server.put("/a.jpg", b"picture")
    storage = HttpStorage(server.url, on_trouble=lambda _: None)
    kind, message = failure(storage, "a.jpg")
    assert kind is FailureKind.READ
    assert message.startswith("it is not fetched: 127.0.0.1 leads to 127.0.0.1, which is no public address.")
    assert message.endswith("TRTJOB_FETCH_ALLOW_LOCAL=true allows it")
    assert storage.entry("a.jpg") == Entry("a.jpg", 0, "")
    assert server.heard == []


def test_a_public_name_that_leads_on_to_a_local_machine_is_not_followed(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The public machine is this one, by a check that is told so."""
    server.put("/a.jpg", b"", status=302, headers={"Location": "http://localhost:1/secret.jpg"})

    def check(host: str, addresses: list[str], *, allow_local: bool, setting: str) -> str:
        return checked_address(host, addresses, allow_local=allow_local or host == "public.example", setting=setting)

    monkeypatch.setattr(web_connection, "checked_address", check)

    def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"] if host == "public.example" else addresses_of(host, port)

    storage = HttpStorage(f"http://public.example:{server.port}", on_trouble=lambda _: None, resolve=resolve)
    kind, message = failure(storage, "a.jpg")
    assert kind is FailureKind.READ
    assert "localhost leads to" in message
    assert "no public address" in message


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tls_port(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port at which the server, called localhost, is reached over TLS; this process trusts its authority."""
    with tls_proxy(trusted_context(tmp_path, monkeypatch), server.port) as port:
        yield port
        http.forget_hosts()


def over_tls(host: str, port: int) -> HttpStorage:
    return HttpStorage(f"https://{host}:{port}", on_trouble=lambda _: None, allow_local=True)


def test_an_image_comes_over_tls_from_who_can_show_that_name(server: WebServer, tls_port: int) -> None:
    server.put("/a.jpg", b"picture")
    for _ in range(3):
        assert over_tls("localhost", tls_port).fetch(Entry("a.jpg", 0, "")) == b"picture"
    assert (len(server.heard), server.connections) == (3, 1)
    server.heard.clear()
    kind, message = failure(over_tls("127.0.0.1", tls_port), "a.jpg")
    assert (kind, server.heard) == (FailureKind.READ, [])
    assert message == "it cannot be fetched: no secure connection: CERTIFICATE_VERIFY_FAILED"


def test_an_address_of_tls_never_leads_to_one_without(server: WebServer, tls_port: int) -> None:
    server.put("/a.jpg", b"", status=301, headers={"Location": f"{server.url}/b.jpg"})
    server.put("/b.jpg", b"picture")
    assert failure(over_tls("localhost", tls_port), "a.jpg")[1].startswith("it is not fetched: it leads from https://")
    assert server.heard == ["GET /a.jpg"]
