"""A user at a terminal, with the digits sample."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from poison import put_into_every_process, slow_files
from terminal import DIGITS


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
    each = put_into_every_process(tmp_path / "slowly", slow_files(".jpg", 0.033))
    return {**each, "TRTJOB_IMAGE_PROCESSES": "1"}
