"""What every test gets: a home of its own, a real server, and the reference data where they are at hand."""

import os
import pwd
import tempfile
from collections.abc import Generator, Iterator
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import botocore.session
import hypothesis
import pytest
import redis as redis_py
from fault_proxy import FaultProxy, fault_proxy
from s3_server import S3Server, s3_server, weed
from terminal import DIGITS, Terminal, small_digits

from trtjob.config import Settings
from trtjob.converters.keras import packages
from trtjob.errors import QueueError
from trtjob.garbage import lasting
from trtjob.queue.connection import Connection
from trtjob.queue.embedded_server import EmbeddedServer
from trtjob.queue.job_store import JobStore
from trtjob.queue.rq_queue import WorkQueue
from trtjob.storage.s3 import client

# A first example that imports or compiles something is slow on a busy machine, which says nothing of the code.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")

# Tests import ONNX Runtime themselves too; see trtjob.engines.onnxruntime.package.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Where several processes share the cores, threads of NumPy's that wait for each other burn a fifth of these.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

MOST_PROCESSES = 16  # each has a Redis and an S3 server of its own

TESTS = Path(__file__).parent

# Fixtures that each process would make for itself, within seconds of a core.
COSTLY = ("keras", "s3_process", "recorded_by_name", "references")

REAL_HOME = pwd.getpwuid(os.getuid()).pw_dir
SHARED = Path(__file__).parents[2] / "shared"


def missing_service(reason: str) -> None:
    """Skip on a laptop; fail where `TRTJOB_REQUIRE_SERVICES=1` says that everything must be there."""
    if os.environ.get("TRTJOB_REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def reader(module: str) -> Any:
    """Import what a tool reads exports with; skip without the tool, or fail where `TRTJOB_REQUIRE_READERS=1`.

    Where the system lacks a library that the tool draws with (libGL), it is skipped in any case, and the library named.
    """
    try:
        return pytest.importorskip(module, exc_type=ImportError)
    except pytest.skip.Exception as err:
        if os.environ.get("TRTJOB_REQUIRE_READERS") == "1" and "shared object file" not in str(err):
            pytest.fail(str(err))
        raise


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Take two processes more than there are cores, since many tests wait. Each has to collect all tests first."""
    return min(len(os.sched_getaffinity(0)) + 2, MOST_PROCESSES)


def pytest_configure(config: pytest.Config) -> None:
    told = getattr(config, "workerinput", None)
    if told is not None and [Path(path).resolve() for path in config.args] == [TESTS]:
        ignored = {Path(path).resolve() for path in config.getoption("ignore") or ()}
        config.args[:] = _from(int(told["workerid"].removeprefix("gw")) / told["workercount"], ignored)
        config.pluginmanager.register(InOrder())


def _from(share: float, ignored: set[Path]) -> list[str]:
    """Return all tests' files and folders, from those on before which a share of the code lies.

    So processes that collect side by side in a fresh clone compile different files, and find the others' compiled.
    """
    all_of_them = (path for path in TESTS.iterdir() if path.is_dir() or path.name.startswith("test_"))
    there = sorted(path for path in all_of_them if path not in ignored)
    sizes = [sum(file.stat().st_size for file in (path.rglob("*.py") if path.is_dir() else [path])) for path in there]
    begun = sum(before < share * sum(sizes) for before in accumulate(sizes))
    return [str(path) for path in there[begun:] + there[:begun]]


class InOrder:
    """The same order of tests in every process, wherever it has begun to collect them."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: item.path)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among the tests, now or while they run: there are thousands, and all stay to the end."""
    with lasting():
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep tests together that share a costly fixture, and begin with what is slow, so that nobody ends with it alone.

    Each process begins with one block of the tests, and takes from the ends of others' when it has done its own. What
    is costly is in the first block, and what is slow in the others.
    """
    processes = int(getattr(config, "workerinput", {}).get("workercount", 1))
    costly = sorted((item for item in items if _costly(item) < len(COSTLY)), key=_costly)
    others = [item for item in items if _costly(item) == len(COSTLY)]
    slow = [item for item in others if item.get_closest_marker("slow")]
    quick = iter([item for item in others if not item.get_closest_marker("slow")])
    shares = max(1, processes - 1)
    blocks = [slow[len(slow) * n // shares : len(slow) * (n + 1) // shares] for n in range(shares)]
    blocks = [costly + blocks[0]] if processes == 1 else [costly, *blocks]
    for block in blocks:
        block += islice(quick, max(0, len(items) // processes - len(block)))
    items[:] = [*chain.from_iterable(blocks), *quick]


def _costly(item: pytest.Item) -> int:
    """Return the place of the first costly fixture that a test asks for: those that ask for none are last."""
    asked = getattr(item, "fixturenames", ())
    return next((place for place, name in enumerate(COSTLY) if name in asked), len(COSTLY))


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test, and every process that it starts, away from the real user's files and settings."""
    own = ("TRTJOB_", "AWS_")
    for name in [name for name in os.environ if name.startswith(own) and not name.startswith("TRTJOB_REQUIRE_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)  # some run pytest themselves
    monkeypatch.setenv("UV_CACHE_DIR", f"{REAL_HOME}/.cache/uv")  # what it has downloaded before
    home = tmp_path / "user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name, folder in {
        "DATA": ".local/share",
        "CONFIG": ".config",
        "CACHE": ".cache",
        "STATE": ".local/state",
    }.items():
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / folder))


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="trtjob-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a home of this test's own; connecting with them starts an embedded server there."""
    return Settings(home=tmp_path / "home")


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    """A connection to an embedded server of this test's own."""
    try:
        connection = Connection(settings)
    except QueueError as err:
        missing_service(str(err))
    with connection:
        yield connection


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """One real server for the whole session, for tests that only need some server."""
    with tempfile.TemporaryDirectory(prefix="trtjob-test-") as folder:
        server = EmbeddedServer(Path(folder) / "server")
        try:
            server.open()
        except QueueError as err:
            missing_service(str(err))
        with server:
            yield server


@pytest.fixture
def redis(server: EmbeddedServer) -> Iterator[redis_py.Redis]:
    """A client of the session's server, which is empty."""
    client = redis_py.Redis.from_url(server.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def store(redis: redis_py.Redis) -> JobStore:
    return JobStore(redis)


@pytest.fixture
def queue(redis: redis_py.Redis) -> WorkQueue:
    return WorkQueue(redis, "test")


@pytest.fixture(scope="session", autouse=True)
def _one_loader() -> Iterator[None]:
    """Have botocore read its description of S3 once: that takes longer than what most tests ask for."""
    loader = botocore.session.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", lambda _data_path=None: loader)
        yield


@pytest.fixture(scope="session")
def s3_process() -> Iterator[S3Server]:
    """One real S3 server for the whole session."""
    if weed() is None:
        missing_service("the S3 server is not installed: make test brings it")
    with tempfile.TemporaryDirectory(prefix="trtjob-test-") as folder, s3_server(Path(folder)) as server:
        yield server


@pytest.fixture
def s3(s3_process: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The session's S3 server, which this test and the processes that it starts find in their environment."""
    for name, value in s3_process.environment.items():
        monkeypatch.setenv(name, value)
    client.forget_buckets()
    yield s3_process
    client.forget_buckets()


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """An empty bucket."""
    return s3.new_bucket()


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy before the S3 server that can be told to fail; this test's requests go through it."""
    with fault_proxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        client.forget_buckets()
        yield proxy


@pytest.fixture(scope="session")
def keras() -> None:
    """Keras and TensorFlow, imported once, in which no garbage is looked for: after each model that is closed all other
    memory is searched.
    """
    with lasting():
        packages.keras()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A user at a terminal."""
    terminal = Terminal(tmp_path / "home")
    yield terminal
    terminal.end_all()


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of a user who has used the small sample model: to convert it takes longer than most jobs."""
    folder = tmp_path_factory.mktemp("converted")
    terminal = Terminal(folder / "home")
    assert terminal.here("convert", small_digits(folder), "--local").code == 0
    return terminal.home / "models"


@pytest.fixture
def digits() -> Path:
    """The sample model."""
    return DIGITS / "digits.weights"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the checkout: models, images, Darknet's own results."""
    if not SHARED.is_dir():
        pytest.skip("the reference data are not at hand: there is no folder `shared` beside the checkout")
    return SHARED
