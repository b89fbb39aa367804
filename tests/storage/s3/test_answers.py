"""Whatever a store answers, callers hear of it in the errors that they know, and a person is told what to do."""

import asyncio
import re
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from fault_proxy import FaultProxy, answer
from s3_server import KEY, SECRET, S3Server

from trtjob.errors import ImageError, StorageError
from trtjob.storage import give_up_after, retry
from trtjob.storage.listing import Entry
from trtjob.storage.s3.client import bucket_named
from trtjob.storage.s3.storage import S3Storage

BODY = bytes(range(256)) * 40
ODD = "object\todd"  # which boto3 moves, since obstore refuses it
ENTRY, ODD_ENTRY = Entry("object", len(BODY), ""), Entry(ODD, len(BODY), "")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(retry, "LAST_PAUSE_S", 0.005)
    monkeypatch.setattr(retry, "POLL_S", 0.005)


@pytest.fixture(scope="module")
def module_bucket(s3_process: S3Server) -> str:
    """One bucket for all: each holds room of the server's disk for itself."""
    return s3_process.new_bucket()


@pytest.fixture
def storage(s3: S3Server, proxy: FaultProxy, module_bucket: str) -> S3Storage:
    """A place behind the proxy, with two objects in it; one that fails is given up at once."""
    place = secrets.token_hex(4)
    for key in ("object", ODD):
        s3.client().put_object(Bucket=module_bucket, Key=f"{place}/{key}", Body=BODY)
    return S3Storage(f"s3://{module_bucket}/{place}", on_trouble=give_up_after(0.005))


# -- every operation, every answer -------------------------------------------------------------------------------------


def _writing(storage: S3Storage) -> None:
    with storage.writing("object-new") as file:
        file.write(BODY)


Errors = tuple[type[Exception], ...]
OPERATIONS: dict[str, tuple[Errors, Callable[[S3Storage], object]]] = {
    "exists": ((StorageError,), lambda s: s.exists("object")),
    "read": ((StorageError, FileNotFoundError), lambda s: s.read("object")),
    "read odd": ((StorageError, FileNotFoundError), lambda s: s.read(ODD)),
    "lines": ((StorageError, FileNotFoundError), lambda s: list(s.lines("object"))),
    "write": ((StorageError,), lambda s: s.write("object-new", BODY)),
    "write odd": ((StorageError,), lambda s: s.write(ODD, BODY)),
    "create": ((StorageError,), lambda s: s.create("object-new", BODY)),
    "create odd": ((StorageError,), lambda s: s.create(ODD + "object-new", BODY)),
    "writing": ((StorageError,), _writing),
    "put": ((StorageError, OSError), lambda s: s.put("object-new", BODY)),
    "put odd": ((StorageError, OSError), lambda s: s.put(ODD, BODY)),
    "aput": ((StorageError, OSError), lambda s: asyncio.run(s.aput("object-new", BODY))),
    "aput odd": ((StorageError, OSError), lambda s: asyncio.run(s.aput(ODD, BODY))),
    "delete": ((StorageError,), lambda s: s.delete("gone")),
    "list": ((StorageError,), lambda s: s.list("")),
    "remove_unfinished": ((), lambda s: s.remove_unfinished()),
    "images": ((StorageError,), lambda s: list(s.images())),
    "entry": ((StorageError,), lambda s: s.entry("object")),
    "fetch": ((StorageError, ImageError), lambda s: s.fetch(ENTRY)),
    "fetch odd": ((StorageError, ImageError), lambda s: s.fetch(ODD_ENTRY)),
    "afetch": ((StorageError, ImageError), lambda s: asyncio.run(s.afetch(ENTRY))),
    "afetch odd": ((StorageError, ImageError), lambda s: asyncio.run(s.afetch(ODD_ENTRY))),
}
STATUSES = [400, 401, 403, 404, 405, 409, 411, 412, 416, 429, 500, 501, 503, 505, 507]
CODES = [
    (301, "PermanentRedirect"),
    (400, "RequestTimeout"),
    (400, "ExpiredToken"),
    (400, "KeyTooLongError"),
    (403, "AccessDenied"),
    (403, "InvalidObjectState"),
    (403, "RequestTimeTooSkewed"),
    (403, "SignatureDoesNotMatch"),
    (404, "NoSuchBucket"),
    (404, "NoSuchKey"),
    (404, "NoSuchUpload"),
    (409, "ConditionalRequestConflict"),
    (409, "OperationAborted"),
    (412, "PreconditionFailed"),
    (501, "NotImplemented"),
    (503, "SlowDown"),
    (507, "XMinioStorageFull"),
]
TRUNCATED = b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"
OTHERS = {
    "nothing": answer(200, body=b""),
    "a web page": answer(200, body=b"<html><body>Please log in.</body></html>"),
    "other XML": answer(200, body=b"<a/>"),
    "half an XML": answer(200, body=b"<?xml version='1.0'?><ListBucketResult><IsTruncated>fal"),
    "no text": answer(200, body=b"\xff\xfe\x00"),
    "a truncated page of nothing": answer(
        200, body=b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"
    ),
    "an error of no XML": answer(500, body=b"oops"),
    "a cut body": answer(200, body=BODY)[:-100],
    "a wrong ETag": answer(200, body=BODY).replace(b"\r\n\r\n", b'\r\nETag: "%s"\r\n\r\n' % (b"0" * 32), 1),
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "no word": b"",
}
ANSWERS = {
    **{f"{status}": answer(status, body=b"") for status in STATUSES},
    **{f"{status} {code}": answer(status, code) for status, code in CODES},
    **OTHERS,
}
EVERYWHERE, OF_OBJECTS = "", "object"  # to every request, and to those for objects while the bucket can be listed
ADVICE = re.compile(r"Ask for|Check|Free|Log in|repeat|Run the same command|Set |Use another|clock is wrong")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "where"),
    [  # of a status `make test` takes one, `make chaos` the other
        pytest.param(name, where, marks=pytest.mark.chaos if name not in OTHERS and (place + other) % 2 else ())
        for place, name in enumerate(ANSWERS)
        for other, where in enumerate((EVERYWHERE, OF_OBJECTS))
    ],
)
def test_whatever_a_store_answers_is_told_in_known_errors(
    storage: S3Storage, module_bucket: str, proxy: FaultProxy, name: str, where: str
) -> None:
    for asked, (errors, operation) in OPERATIONS.items():
        proxy.say(ANSWERS[name], only=where)
        bucket_named(module_bucket).breaker.succeeded()
        err = _error_of(operation, storage)
        if err is not None:
            assert type(err) in errors or (OSError in errors and isinstance(err, OSError)), f"{asked}: {err!r}"
            _check_told(asked, err)


def _error_of(operation: Callable[[S3Storage], object], storage: S3Storage) -> Exception | None:
    try:
        operation(storage)
    except Exception as err:  # noqa: BLE001 - any other than the known ones is what is looked for
        return err
    return None


def _check_told(name: str, err: Exception) -> None:
    told = str(err)
    assert not re.search(r"https?://|signature=|mistake|Traceback", told, re.IGNORECASE), f"{name}: {told}"
    assert KEY not in told, f"{name}: {told}"
    assert SECRET not in told, f"{name}: {told}"
    if isinstance(err, StorageError):
        assert "s3://" in told, f"{name}: {told}"
        assert ADVICE.search(told), f"{name}: {told}"


# -- conflicts ---------------------------------------------------------------------------------------------------------


CONFLICTS = ["ConditionalRequestConflict", "OperationAborted"]


@pytest.mark.parametrize("code", CONFLICTS)
@pytest.mark.parametrize("name", ["write", "write odd", "create", "create odd", "writing", "put", "aput", "delete"])
def test_a_conflict_is_tried_again(storage: S3Storage, proxy: FaultProxy, name: str, code: str) -> None:
    proxy.say(answer(409, code), times=2)
    assert OPERATIONS[name][1](storage) in (None, True)
    assert proxy.met == 2


def test_a_conflict_that_does_not_end_says_what_to_do(storage: S3Storage, proxy: FaultProxy) -> None:
    proxy.fail("conflict", only="PUT")
    with pytest.raises(StorageError, match=r"cannot write s3://.*/object-new: Conditional.*Run the same command"):
        storage.create("object-new", BODY)
    assert proxy.met == retry.TRIES


def test_of_two_creators_with_a_conflict_the_later_one_has_lost(storage: S3Storage, proxy: FaultProxy) -> None:
    proxy.fail("conflict", only="PUT", times=1)
    assert not storage.create("object", b"mine")
    assert storage.read("object") == BODY


@pytest.mark.parametrize("key", ["object-new", ODD + "object-new"])
def test_an_object_whose_creation_nobody_confirmed_is_ones_own(storage: S3Storage, proxy: FaultProxy, key: str) -> None:
    proxy.fail("lose", only="PUT", times=1)
    assert storage.create(key, BODY)
    assert proxy.met == 1


@pytest.mark.parametrize("key", ["object", ODD])
def test_an_object_that_was_there_before_a_lost_answer_is_anothers(
    storage: S3Storage, proxy: FaultProxy, key: str
) -> None:
    proxy.fail("lose", only="PUT", times=1)
    assert not storage.create(key, b"mine")
    assert proxy.met == 1


def test_an_object_of_the_same_bytes_is_anothers_where_no_answer_was_lost(storage: S3Storage) -> None:
    assert not storage.create("object", BODY)


def test_what_is_full_is_no_reason_to_wait(storage: S3Storage, proxy: FaultProxy) -> None:
    proxy.say(answer(507, "XMinioStorageFull"), only="PUT")
    with pytest.raises(StorageError, match="is full"):
        storage.write("object-new", BODY)
    assert proxy.met == 1


def test_an_upload_that_somebody_cleared_away_begins_anew(storage: S3Storage, proxy: FaultProxy) -> None:
    proxy.say(answer(404, "NoSuchUpload"), only="PUT", times=1)
    storage.write("object-new", BODY)
    assert storage.read("object-new") == BODY


def test_a_bucket_that_cannot_be_is_named_at_once(s3: S3Server) -> None:
    trouble: list[Any] = []
    with pytest.raises(StorageError, match="Invalid bucket name"):
        S3Storage("s3://no bucket!/x", on_trouble=trouble.append).list("plan")
    assert trouble == []


# -- long outages ------------------------------------------------------------------------------------------------------


def test_an_outage_may_last_for_hours() -> None:
    assert 0 < retry.pause_s(10_000) <= retry.LAST_PAUSE_S


def test_a_place_whose_every_request_hangs_is_given_up(
    storage: S3Storage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each probe takes longer than the patience, so that no word of the trouble comes for as long."""
    monkeypatch.setattr(retry, "TRIES", 1)
    proxy.hang_s = 0.3
    proxy.fail("hang")
    hanging = S3Storage(storage.uri, on_trouble=give_up_after(0.2))
    with pytest.raises(StorageError, match="Given up"):
        hanging.list("")
