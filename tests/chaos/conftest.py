"""A fleet for each test, and the calm run that every wild one must equal byte for byte."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.fleet import Fleet
from chaos.valkey import Valkey
from terminal import DIGITS, Terminal, job_folder

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
