"""Named images in a bucket far away are looked up beside each other: a list's keys, and those of a retry."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from s3_server import S3Server
from samples import job_spec, made
from socket_server import socket_server

from trtjob.errors import FailureKind
from trtjob.jobs.folder import RESULTS, JobFolder
from trtjob.jobs.plan import plan_epoch, planned_entries, write_source_list
from trtjob.jobs.records import ImageFailure, Record, to_line
from trtjob.jobs.source_images import LOOKS_AT_ONCE
from trtjob.jobs.spec import JobSpec
from trtjob.storage import open_storage
from trtjob.storage.listing import Entry
from trtjob.storage.s3 import client

LATENCY_S = 0.05
KEYS = [f"{number:03d}.jpg" for number in range(300)]
THERE = KEYS[::10]


@dataclass
class FarAway:
    """A store whose every answer takes LATENCY_S. now, most: requests that are under way, and ever were."""

    now: int = 0
    most: int = 0
    heads: int = 0


@pytest.fixture
def far_away(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarAway]:
    store, target = FarAway(), urlsplit(s3.endpoint)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await answer(await reader.readuntil(b"\r\n\r\n"), writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            with suppress(ConnectionError, asyncio.CancelledError):
                writer.close()

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        assert request.startswith(b"HEAD "), "nothing else is asked of the source"
        store.heads += 1
        store.now += 1
        store.most = max(store.most, store.now)
        await asyncio.sleep(LATENCY_S)
        up_reader, up_writer = await asyncio.open_connection(target.hostname, target.port)
        try:
            up_writer.write(request)
            head = await up_reader.readuntil(b"\r\n\r\n")
        finally:
            up_writer.close()
        store.now -= 1
        writer.write(head)
        await writer.drain()

    with socket_server(serve) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        client.forget_buckets()
        yield store
        client.forget_buckets()


@pytest.fixture
def spec(s3: S3Server, tmp_path: Path) -> JobSpec:
    """A job over a list of many images, few of which are there."""
    bucket = s3.new_bucket()
    for key in THERE:
        s3.client().put_object(Bucket=bucket, Key=key, Body=b"x")
    return job_spec(f"s3://{bucket}", tmp_path / "out", kind="list", shard_size=64)


def plan(folder: JobFolder, spec: JobSpec, epoch: int, reason: str) -> list[Entry]:
    """Plan a round, and return what it has."""
    begun = time.monotonic()
    source = open_storage(spec.source.root)
    made = plan_epoch(folder, spec, source, epoch=epoch, reason=reason, on_shards=lambda shards, images: None)
    print(f"{reason}: {len(KEYS) / (time.monotonic() - begun):.0f} keys/s at a latency of {LATENCY_S} s")
    return list(planned_entries(folder, [made]))


@pytest.mark.slow
def test_named_images_are_looked_up_beside_each_other_and_stay_in_order(far_away: FarAway, spec: JobSpec) -> None:
    folder = made(JobFolder.of(spec))
    write_source_list(folder, KEYS)
    entries = plan(folder, spec, 0, "submit")
    assert [entry.key for entry in entries] == KEYS
    assert [entry.key for entry in entries if entry.etag] == THERE
    failure = ImageFailure(FailureKind.DECODE, "not an image")
    folder.storage.write(RESULTS, b"".join(to_line(Record(key, error=failure)) for key in KEYS))
    assert plan(folder, spec, 1, "retry") == entries
    assert far_away.heads == 2 * len(KEYS)
    assert LOOKS_AT_ONCE // 4 < far_away.most <= LOOKS_AT_ONCE
