"""The store, or the way to it, fails: a request is tried again, an object given up, a place waited for."""

import asyncio
import threading
import time

import pytest
from fault_proxy import Fault, FaultProxy
from s3_server import S3Server
from terminal import wait_for

from trtjob.errors import FailureKind, ImageError, StorageError
from trtjob.storage import give_up_after, retry, troubles
from trtjob.storage.listing import Entry
from trtjob.storage.s3 import storage as s3
from trtjob.storage.s3.storage import S3Storage

FAULTS: list[Fault] = ["slow_down", "reset", "truncate", "refuse"]
BODY = bytes(range(256)) * 400


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds, so that a request is given up within a second."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(retry, "LAST_PAUSE_S", 0.1)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def storage(s3: S3Server, proxy: FaultProxy, told: list[str]) -> S3Storage:
    """A bucket behind the proxy, with a few objects in it."""
    bucket = s3.new_bucket()
    for key in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        s3.client().put_object(Bucket=bucket, Key=key, Body=BODY)
    return S3Storage(f"s3://{bucket}", on_trouble=told.append)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*FAULTS, "drip"])
def test_a_read_that_fails_is_tried_again(storage: S3Storage, proxy: FaultProxy, fault: Fault) -> None:
    proxy.fail(fault, only="/a.jpg", times=2)
    assert storage.fetch(Entry("a.jpg", len(BODY), "")) == BODY
    assert proxy.met == (2 if fault != "drip" else 1)
    proxy.fail(fault, only="/a.jpg", times=2)
    assert asyncio.run(storage.afetch(Entry("a.jpg", len(BODY), ""))) == BODY


@pytest.mark.parametrize("fault", FAULTS)
def test_a_write_that_fails_is_tried_again(storage: S3Storage, proxy: FaultProxy, fault: Fault) -> None:
    proxy.fail(fault, only="PUT", times=2)
    storage.put("x", b"1")
    proxy.fail(fault, only="PUT", times=2)
    asyncio.run(storage.aput("y", b"2"))
    proxy.fail(fault, only="PUT", times=2)
    with storage.writing("z") as file:
        file.write(BODY)
    proxy.fail(None)
    assert (storage.read("x"), storage.read("y"), storage.read("z")) == (b"1", b"2", BODY)


def test_a_commit_whose_answer_was_lost_is_ones_own(storage: S3Storage, proxy: FaultProxy) -> None:
    """The object was made, but nobody heard of it: the second try finds it there."""
    proxy.fail("reset", only="PUT", times=1)
    assert storage.create("manifest.json", b"mine")
    assert proxy.met == 1
    assert not storage.create("manifest.json", b"another's")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_listing_that_fails_is_tried_again(storage: S3Storage, proxy: FaultProxy, fault: Fault) -> None:
    proxy.fail(fault, only="list-type=2", times=2)
    assert [entry.key for entry in storage.images()] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


@pytest.mark.parametrize("fault", ["reset", "truncate"])
def test_a_stream_that_breaks_off_goes_on_where_it_was(
    storage: S3Storage, proxy: FaultProxy, s3: S3Server, fault: Fault
) -> None:
    text = b"".join(b"%07d\n" % n for n in range(400_000))
    storage.write("long", text)
    proxy.fail(fault, only="/long", times=2)
    assert b"".join(storage.lines("long")) == text
    assert proxy.met == 2


def test_an_object_that_is_replaced_while_it_is_read_is_no_mixture(
    storage: S3Storage, proxy: FaultProxy, s3: S3Server
) -> None:
    text = b"".join(b"%07d\n" % n for n in range(400_000))
    storage.write("long", text)
    lines = storage.lines("long")
    proxy.fail("reset", only="/long", times=1)
    assert next(lines) == b"0000000\n"
    storage.write("long", text.replace(b"0", b"9"))
    with pytest.raises(StorageError, match="was replaced while it was read"):
        list(lines)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_an_object_that_fails_alone_is_that_objects_failure(
    storage: S3Storage, proxy: FaultProxy, told: list[str], fault: Fault
) -> None:
    proxy.fail(fault, only="/a.jpg")
    with pytest.raises(ImageError) as caught:
        storage.fetch(Entry("a.jpg", len(BODY), ""))
    assert caught.value.kind == FailureKind.READ
    assert "http" not in str(caught.value)
    with pytest.raises(ImageError):
        asyncio.run(storage.afetch(Entry("a.jpg", len(BODY), "")))
    with pytest.raises(StorageError, match=r"cannot read s3://.*/a\.jpg"):
        storage.read("a.jpg")
    if fault not in ("reset", "truncate"):  # a HEAD has no body that could break off
        with pytest.raises(StorageError, match=r"cannot look for s3://.*/a\.jpg"):
            storage.exists("a.jpg")
    assert storage.entry("a.jpg").key == "a.jpg"
    assert storage.fetch(Entry("b.jpg", len(BODY), "")) == BODY
    assert told == []
    assert troubles() == ""


def test_an_answer_that_hangs_is_cut_off(
    storage: S3Storage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.5)
    proxy.fail("hang", only="/a.jpg", times=1)
    start = time.monotonic()
    assert asyncio.run(storage.afetch(Entry("a.jpg", len(BODY), ""))) == BODY
    assert time.monotonic() - start < 5


@pytest.mark.slow
def test_one_request_that_hangs_with_its_place_is_enough_to_say_so(
    storage: S3Storage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 1.0)
    monkeypatch.setattr(retry, "ASK_AFTER_S", 0.3)
    proxy.hang_s = 1.0
    proxy.fail("hang")
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.append(asyncio.run(storage.afetch(Entry("a.jpg", len(BODY), "")))))
    thread.start()
    assert wait_for(troubles, "the trouble to be told", 5).endswith("no answer in time")
    proxy.fail(None)
    thread.join(10)
    assert read == [BODY]
    assert troubles() == ""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_place_that_fails_is_waited_for_and_said_to_fail(
    storage: S3Storage, proxy: FaultProxy, told: list[str], fault: Fault
) -> None:
    proxy.fail(fault)
    read: dict[str, bytes] = {}

    def fetch(key: str) -> None:
        read[key] = storage.fetch(Entry(key, len(BODY), ""))

    threads = [threading.Thread(target=fetch, args=(key,)) for key in ("a.jpg", "b.jpg", "c.jpg", "d.jpg")]
    for thread in threads:
        thread.start()
    sentence = wait_for(troubles, "the trouble to be told", 10)
    assert sentence.startswith(f"{storage.uri} fails: ")
    assert read == {}
    met = proxy.met
    time.sleep(0.5)
    assert proxy.met - met <= 12, "all ask at once while the place fails"
    proxy.fail(None)
    for thread in threads:
        thread.join(10)
    assert set(read.values()) == {BODY}
    assert len(read) == 4
    assert sentence in told
    assert troubles() == ""


def test_the_last_object_of_a_place_that_fails_is_not_given_up(storage: S3Storage, proxy: FaultProxy) -> None:
    """Nobody else asks, so the place itself is asked."""
    proxy.fail("refuse")
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(storage.fetch(Entry("a.jpg", len(BODY), ""))))
    thread.start()
    wait_for(troubles, "the trouble to be told", 10)
    proxy.fail(None)
    thread.join(10)
    assert found == [BODY]


def test_waiting_ends_when_the_caller_says_so(storage: S3Storage, proxy: FaultProxy) -> None:
    proxy.fail("refuse")
    impatient = S3Storage(storage.uri, on_trouble=give_up_after(0.3))
    with pytest.raises(StorageError, match=r"fails: .*Given up after"):
        impatient.read("a.jpg")
