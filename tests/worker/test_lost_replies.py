"""A small job with the reply to every single command lost in turn, and the answer to every single request.

What was asked for has been done, and who asked cannot know: it is asked again. Nothing of that may show in the end.
"""

from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha1
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import FaultProxy
from pydantic import SecretStr
from redis import Redis
from redis_proxy import RedisProxy, redis_proxy
from s3_server import S3Server
from samples import MODEL
from worker.plain_engine import PlainEngine, write_image
from worker.small_job import IMAGES, LONGER, Scenario, SmallJob, straight

from trtjob.config import Settings
from trtjob.queue import connection as connection_module
from trtjob.queue.connection import Connection
from trtjob.queue.embedded_server import EmbeddedServer
from trtjob.queue.job_store import JobStore
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.scripts import load
from trtjob.queue.scripts import names as script_names
from trtjob.storage import retry
from trtjob.worker.context import Context, set_current

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LEASE_S = 120.0  # no test waits for one to run out
SAMPLES = {straight: 19} | dict.fromkeys(LONGER, 79)  # so many replies apart, `make test` loses one; `make chaos` each

in_all_ways = pytest.mark.parametrize(
    ("scenario", "step"),
    [
        *(pytest.param(way, step, id=f"{way.__name__}, a sample") for way, step in SAMPLES.items()),
        *(pytest.param(way, 1, id=way.__name__, marks=pytest.mark.chaos) for way in SAMPLES),
    ],
)


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    return write_image(tmp_path / "image.png").read_bytes()


@pytest.fixture
def way(server: EmbeddedServer, redis: Redis) -> Iterator[RedisProxy]:
    """The way to the queue's server, on which a reply can be lost."""
    with redis_proxy(server.url) as proxy:
        yield proxy


@pytest.fixture
def context(way: RedisProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """A worker with the client that every worker has, on the way that loses replies."""
    monkeypatch.setattr(connection_module, "RETRY_BASE_S", 0.005)
    settings = Settings(
        home=tmp_path / "home", image_processes=1, window=4, lease_s=LEASE_S, redis_url=SecretStr(way.url)
    )
    with Connection(settings) as connection:
        store, queue = JobStore(connection.redis), WorkQueue(connection.redis, settings.queue)
        context = Context("worker-1", settings, store, queue)
        set_current(context)
        context.adopt_engine(MODEL, PlainEngine())
        yield context
        context.close_engine()


@pytest.fixture
def on_disk(context: Context, redis: Redis, tmp_path: Path, image: bytes) -> Callable[[int], SmallJob]:
    """Make the job of a number in a folder of its own."""

    def make(number: int) -> SmallJob:
        photos, output = tmp_path / f"{number}" / "photos", tmp_path / f"{number}" / "out"

        def put(key: str, data: bytes) -> None:
            photos.mkdir(parents=True, exist_ok=True)
            (photos / key).write_bytes(data)

        def names() -> list[str]:
            return [str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()]

        return SmallJob(context, redis, f"{photos}", f"{output}", put, names)

    return make


@pytest.fixture
def in_bucket(
    s3: S3Server, proxy: FaultProxy, context: Context, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], SmallJob]:
    """Make the job of a number below a prefix of its own, in a bucket behind the proxy."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.005)
    bucket, client = s3.new_bucket(), s3.client()

    def make(number: int) -> SmallJob:
        def put(key: str, data: bytes) -> None:
            client.put_object(Bucket=bucket, Key=f"{number}/photos/{key}", Body=data)

        def names() -> list[str]:
            found = client.list_objects_v2(Bucket=bucket, Prefix=f"{number}/out/")["Contents"]
            return [item["Key"].removeprefix(f"{number}/out/") for item in found]

        root = f"s3://{bucket}/{number}"
        return SmallJob(context, redis, f"{root}/photos", f"{root}/out", put, names)

    return make


@in_all_ways
def test_no_lost_reply_of_redis_shows_in_the_end(
    on_disk: Callable[[int], SmallJob], way: RedisProxy, image: bytes, scenario: Scenario, step: int
) -> None:
    losses = _check_all(scenario, image, on_disk, way.lose, lambda: way.lost, step)
    assert losses * step > 100


@in_all_ways
def test_no_lost_answer_of_a_store_shows_in_the_end(
    in_bucket: Callable[[int], SmallJob], proxy: FaultProxy, image: bytes, scenario: Scenario, step: int
) -> None:
    def lose(number: int) -> None:
        proxy.fail("lose", passing=number - 1, times=1 if number else 0)

    losses = _check_all(scenario, image, in_bucket, lose, proxy.last_met, step)
    assert losses * step > 40


@pytest.mark.parametrize("step", [pytest.param(7, id="a sample"), pytest.param(1, id="", marks=pytest.mark.chaos)])
def test_no_conflict_in_a_store_shows_in_the_end(
    in_bucket: Callable[[int], SmallJob], proxy: FaultProxy, image: bytes, step: int
) -> None:
    def conflict(number: int) -> None:
        proxy.fail("conflict", only="PUT", passing=number - 1, times=1 if number else 0)

    losses = _check_all(straight, image, in_bucket, conflict, proxy.last_met, step)
    assert losses * step > 10


def _check_all(
    scenario: Scenario,
    image: bytes,
    make: Callable[[int], SmallJob],
    lose: Callable[[int], None],
    lost: Callable[[], str],
    step: int,
) -> int:
    """Go through a scenario with nothing lost, then with the first reply lost, with the one `step` behind it, and so on
    to the last. Returns how many were lost."""
    calm = _go(scenario, image, make(0), lambda: lose(0))
    assert isinstance(calm, dict), calm
    wrong = []
    for losses in count():
        number = 1 + losses * step
        ending = _go(scenario, image, make(number), partial(lose, number))
        if not lost():
            break
        if ending != calm:
            wrong.append(f"{number}, lost {_named(lost())}: {_difference(calm, ending)}")
    assert not wrong, "\n".join(wrong)
    return losses


def _go(scenario: Scenario, image: bytes, job: SmallJob, begin: Callable[[], None]) -> dict[str, Any] | Exception:
    for number in range(IMAGES):
        job.put(f"{number:04d}.png", image)
    job.redis.flushall()
    begin()
    try:
        scenario(job, image)
        return job.ending()
    except Exception as err:  # noqa: BLE001 - whatever came of the loss; the others are still to be tried
        return err


def _named(lost: str) -> str:
    """Put a script's name in the place of its digest."""
    names = {sha1(load(name).encode()).hexdigest(): name.upper() for name in script_names()}
    return " ".join(names.get(word, word) for word in lost.split())


def _difference(calm: dict[str, Any], ending: dict[str, Any] | Exception) -> str:
    if isinstance(ending, Exception):
        return repr(ending)
    return "; ".join(f"{name} {_apart(calm[name], ending[name])}" for name in calm if calm[name] != ending[name])


def _apart(calm: Any, wild: Any) -> str:
    if isinstance(calm, dict):
        return f"{ {k: (calm.get(k), wild.get(k)) for k in calm.keys() | wild.keys() if calm.get(k) != wild.get(k)} }"
    return f"not {calm!r} but {wild!r}"
