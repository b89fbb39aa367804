"""Planning a bucket of a million keys: a store that does nothing but list, in a process of its own.

No real store holds a million objects within minutes. This one answers as S3 does, a page of 1,000 keys at a time, so
what is measured is our side: asking, parsing, dividing, writing the shards.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

from benchmarks.host import job_spec
from benchmarks.table import Row
from trtjob.jobs.folder import JobFolder
from trtjob.jobs.plan import plan_epoch
from trtjob.jobs.spec import Source
from trtjob.storage import open_storage
from trtjob.storage.s3.client import forget_buckets

GOAL_PER_S = 20_000
PAGE = 1000
_OBJECT = (
    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    "<ETag>&quot;{etag:032x}&quot;</ETag><Size>123456</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


def key_of(number: int) -> str:
    return f"photos/{number // PAGE:05d}/{number:08d}.jpg"


def serve(count: int) -> None:
    """List `count` keys until the process is ended. Prints the port."""

    class Lister(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            behind = query.get("start-after", [""])[0]
            first = int(behind.rpartition("/")[2].removesuffix(".jpg")) + 1 if behind else 0
            last = min(first + int(query.get("max-keys", [PAGE])[0]), count)
            objects = "".join(_OBJECT.format(key=key_of(n), etag=n) for n in range(first, last))
            body = (
                '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<Name>bucket</Name><KeyCount>{last - first}</KeyCount><MaxKeys>{PAGE}</MaxKeys>"
                f"<IsTruncated>{str(last < count).lower()}</IsTruncated>{objects}</ListBucketResult>"
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Lister) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


@contextmanager
def _store(count: int) -> Iterator[None]:
    command = [sys.executable, "-c", f"from benchmarks.listing import serve; serve({count})"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{process.stdout.readline().strip()}",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }
        forget_buckets()
        try:
            with patch.dict(os.environ, environment):
                yield
        finally:
            forget_buckets()
            process.kill()


def listing(folder: Path, count: int) -> list[Row]:
    """Return the speed of planning a bucket of so many keys."""
    local = job_spec(folder, folder / "listed-out")
    spec = local.model_copy(update={"source": Source(kind="folder", root="s3://bucket/photos")})
    with _store(count):
        start, busy = time.perf_counter(), time.process_time()
        source = open_storage(spec.source.root)
        plan = plan_epoch(
            JobFolder.of(spec), spec, source, epoch=0, reason="submit", on_shards=lambda _shards, _images: None
        )
        elapsed, busy = time.perf_counter() - start, time.process_time() - busy
    if plan.images != count:
        raise RuntimeError(f"{plan.images:,} of {count:,} keys were planned")
    rate = count / elapsed
    note = f"{elapsed:.1f} s, of which {busy:.1f} s of our CPU"
    return [Row(f"plan a bucket of {count:,} keys", rate, "keys/s", f">= {GOAL_PER_S:,}", rate >= GOAL_PER_S, note)]
