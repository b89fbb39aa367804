"""A user at a terminal, with the digits sample."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from poison import put_into_every_process, slow_files
from terminal import DIGITS, Terminal, small_digits


@pytest.fixture
def terminal(terminal: Terminal) -> Terminal:
    """A user whose workers have one image process: each takes as long to begin as a dozen images."""
    terminal.environment["TRTJOB_IMAGE_PROCESSES"] = "1"
    return terminal


@pytest.fixture
def digits(terminal: Terminal, converted: Path, tmp_path: Path) -> Path:
    """The sample model, small, which the user has used before: what it finds does not matter here."""
    shutil.copytree(converted, terminal.home / "models")
    return small_digits(tmp_path)


@pytest.fixture
def scenes() -> list[Path]:
    """The sample scenes."""
    return sorted((DIGITS / "scenes").rglob("*.jpg"))


@pytest.fixture
def photos(tmp_path: Path, scenes: list[Path]) -> Callable[[int], Path]:
    """Make a folder of so many images, in three sub-folders."""

    def make(count: int) -> Path:
        folder = tmp_path / "photos"
        for index in range(count):
            target = folder / "abc"[index % 3] / f"{index:04d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(scenes[index % len(scenes)], target)
        return folder

    return make


@pytest.fixture
def slowly(tmp_path: Path) -> dict[str, str]:
    """An environment in which a worker process does 30 images a second at most: a test can come between."""
    return put_into_every_process(tmp_path / "slowly", slow_files(".jpg", 0.033))
