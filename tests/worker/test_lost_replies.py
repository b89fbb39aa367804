"""A small job with the reply to every single command lost in turn, and the answer to every single request.

What was asked for has been done, and who asked cannot know: it is asked again. Nothing of that may show in the end.
"""

from collections.abc import Callable, Iterator
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
from worker.small_job import IMAGES, SCENARIOS, SmallJob

from trtjob.config import Settings
from trtjob.jobs import connection as connection_module
from trtjob.jobs import queue_scripts, scripts
from trtjob.jobs.connection import Connection
from trtjob.jobs.queue import WorkQueue
from trtjob.jobs.server import EmbeddedServer
from trtjob.jobs.storage import breaker
from trtjob.jobs.store import JobStore
from trtjob.worker import context as context_module
from trtjob.worker.context import Context, set_current

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Scenario = Callable[[SmallJob, bytes], None]
LEASE_S = 120.0  # no test waits for one to run out
in_all_ways = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)


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
        monkeypatch.setattr(context_module, "_current", None)
        set_current(context)
        context.adopt_engine(MODEL, PlainEngine())
        yield context
        context.close_engine()


@in_all_ways
def test_no_lost_reply_of_redis_shows_in_the_end(
    context: Context, way: RedisProxy, redis: Redis, tmp_path: Path, image: bytes, scenario: Scenario
) -> None:
    def job(number: int) -> SmallJob:
        folder = tmp_path / f"{number}"
        for key in _keys():
            _put(folder / "photos" / key, image)
        redis.flushall()
        way.lose(number)
        return SmallJob(
            context,
            redis,
            str(folder / "photos"),
            str(folder / "out"),
            lambda key, data: _put(folder / "photos" / key, data),
            lambda: [str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file()],
        )

    _check_all(scenario, image, job, lambda: way.lost)


@in_all_ways
def test_no_lost_answer_of_a_store_shows_in_the_end(
    context: Context,
    redis: Redis,
    s3: S3Server,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    image: bytes,
    scenario: Scenario,
) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE_S", 0.005)

    def job(number: int) -> SmallJob:
        bucket, client = s3.new_bucket(), s3.client()

        def names() -> list[str]:
            return [o["Key"] for o in client.list_objects_v2(Bucket=bucket, Prefix="out/")["Contents"]]

        def put(key: str, data: bytes) -> None:
            client.put_object(Bucket=bucket, Key=f"photos/{key}", Body=data)

        for key in _keys():
            put(key, image)
        redis.flushall()
        proxy.fail("lose", passing=number - 1, times=1 if number else 0)
        return SmallJob(context, redis, f"s3://{bucket}/photos", f"s3://{bucket}/out", put, names)

    _check_all(scenario, image, job, lambda: b"".join(proxy.met_lines).decode())


def _keys() -> list[str]:
    return [f"{number:04d}.png" for number in range(IMAGES)]


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _check_all(scenario: Scenario, image: bytes, job: Callable[[int], SmallJob], lost: Callable[[], str]) -> None:
    """Go through a scenario with nothing lost, then with the first answer lost, the second, to the last."""
    calm = _go(scenario, image, job(0))
    assert isinstance(calm, dict), calm
    wrong = []
    for number in count(1):
        ending = _go(scenario, image, job(number))
        if not lost():
            break
        if ending != calm:
            wrong.append(f"{number}, lost {_named(lost())}: {_difference(calm, ending)}")
    assert number > 20, "nothing was lost"
    assert not wrong, "\n".join(wrong)


def _go(scenario: Scenario, image: bytes, job: SmallJob) -> dict[str, Any] | Exception:
    try:
        scenario(job, image)
        return job.ending()
    except Exception as err:  # noqa: BLE001 - whatever came of the loss; the others are still to be tried
        return err


def _named(lost: str) -> str:
    """Put a script's name in the place of its digest."""
    texts = {**vars(scripts), **vars(queue_scripts)}
    names = {sha1(text.encode()).hexdigest(): name for name, text in texts.items() if isinstance(text, str)}
    return " ".join(names.get(word, word) for word in lost.split())


def _difference(calm: dict[str, Any], ending: dict[str, Any] | Exception) -> str:
    if isinstance(ending, Exception):
        return repr(ending)
    return "; ".join(f"{name} {_apart(calm[name], ending[name])}" for name in calm if calm[name] != ending[name])


def _apart(calm: Any, wild: Any) -> str:
    if isinstance(calm, dict):
        return f"{ {k: (calm.get(k), wild.get(k)) for k in calm.keys() | wild.keys() if calm.get(k) != wild.get(k)} }"
    return f"not {calm!r} but {wild!r}"
