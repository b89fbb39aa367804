"""A fleet for each test, on one machine or over hosts, and the calm run that each wild one must equal byte for byte."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaos.fleet import Fleet
from chaos.hosts import QUEUE, STORE, Host, NoHosts, Site, site
from chaos.spread import Spread
from chaos.valkey import Valkey
from conftest import missing_service
from s3_server import S3Server, s3_server, weed
from terminal import DIGITS, Terminal, job_folder

from trtjob.storage import LocalStorage, open_storage
from trtjob.storage.s3 import client
from trtjob.storage.upload import upload_images

Note = Callable[..., None]  # takes seconds by what they are of

NOTES = pytest.StashKey[list[tuple[str, dict[str, float]]]]()
IMAGES = 600
BROKEN = ("a/0300.jpg", "c/0599.jpg")


@pytest.fixture(scope="session")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 images in three folders, two of them damaged."""
    folder = tmp_path_factory.mktemp("crowd") / "photos"
    scenes = sorted((DIGITS / "scenes").rglob("*.jpg"))
    for index in range(IMAGES):
        target = folder / "abc"[index % 3] / f"{index:04d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scenes[index % len(scenes)], target)
    for name in BROKEN:
        (folder / name).write_bytes((folder / name).read_bytes()[:3000])
    return folder


@pytest.fixture(scope="session")
def calm(crowd: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What `results.jsonl` holds when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("calm")
    terminal = Terminal(folder / "home")
    try:
        command: list[str | Path] = ["run", crowd, "--model", DIGITS / "digits.weights", "-o", folder / "out"]
        outcome = terminal.run(*command, "--annotate", "none")
        assert outcome.code == 1, outcome.err  # two images are damaged
    finally:
        terminal.end_all()
    return (job_folder(folder / "out") / "results.jsonl").read_bytes()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey")
    server.start()
    yield server
    server.end()


@pytest.fixture
def fleet(terminal: Terminal, valkey: Valkey, crowd: Path, tmp_path: Path) -> Iterator[Fleet]:
    terminal.environment["TRTJOB_REDIS_URL"] = valkey.url
    terminal.environment["OMP_NUM_THREADS"] = "1"
    yield Fleet(terminal, valkey, DIGITS / "digits.weights", crowd, str(tmp_path / "out"))
    terminal.end_all()  # while the server is there to take leave of


@pytest.fixture(scope="session", name="site")
def _site() -> Iterator[Site]:
    """The networks of the whole session's hosts."""
    try:
        with site() as made:
            yield made
    except NoHosts as err:
        missing_service(f"no hosts: {err}")


@pytest.fixture(scope="session")
def queue_host(site: Site) -> Host:
    return site.host("valkey", [QUEUE])


@pytest.fixture(scope="session")
def store(site: Site) -> Iterator[S3Server]:
    """An S3 server on a host of its own."""
    if weed() is None:
        missing_service("the S3 server is not installed: make chaos brings it")
    host = site.host("weed", [STORE])
    with (
        tempfile.TemporaryDirectory(prefix="trtjob-test-") as folder,
        s3_server(Path(folder), host.addresses[STORE], host.within) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def stored_crowd(store: S3Server, crowd: Path) -> str:
    """Where the crowd is in a bucket."""
    place = f"s3://{store.new_bucket()}/photos"
    fill(place, crowd, store)
    return place


def fill(place: str, crowd: Path, server: S3Server) -> None:
    """Bring the crowd to a bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        client.forget_buckets()
        local = LocalStorage(crowd)
        upload_images(local, open_storage(place), list(local.images()), lambda *_: None)
        client.forget_buckets()


@pytest.fixture
def spread(site: Site, queue_host: Host, terminal: Terminal, crowd: Path, tmp_path: Path) -> Iterator[Spread]:
    """A fleet over hosts, whose photos and outputs are on this machine's disk, which all hosts see."""
    valkey = Valkey(tmp_path / "valkey", queue_host.addresses[QUEUE], queue_host.within)
    valkey.start()
    terminal.environment |= {"TRTJOB_REDIS_URL": valkey.url, "OMP_NUM_THREADS": "1", "TRTJOB_OUTAGE_S": "8"}
    fleet = Fleet(terminal, valkey, DIGITS / "digits.weights", crowd, str(tmp_path / "out"))
    spread = Spread(fleet, site, tmp_path)
    try:
        yield spread
    finally:
        spread.end()
        terminal.end_all()
        valkey.end()


@pytest.fixture
def far(spread: Spread, store: S3Server, stored_crowd: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spread]:
    """A fleet over hosts, whose photos and outputs are in buckets."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    client.forget_buckets()
    spread.fleet.photos = stored_crowd
    spread.fleet.output = f"s3://{store.new_bucket()}/out"
    yield spread
    client.forget_buckets()


@pytest.fixture
def note(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Note:
    """Print how long something took, and keep it for the table at the end."""

    def noted(**seconds: float) -> None:
        name = request.node.name.removeprefix("test_")
        request.config.stash.setdefault(NOTES, []).append((name, seconds))
        with capsys.disabled():
            print("\n" + _line(name, seconds))

    return noted


def _line(name: str, seconds: dict[str, float]) -> str:
    return f"{name}: " + ", ".join(f"{what.removesuffix('_s')} {value:.1f} s" for what, value in seconds.items())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print all that was noted, in one table."""
    if notes := config.stash.get(NOTES, []):
        terminalreporter.section("seconds to recovery, and the job's whole time")
        for name, seconds in sorted(notes, key=lambda noted: noted[0]):
            terminalreporter.line(_line(name, seconds))
