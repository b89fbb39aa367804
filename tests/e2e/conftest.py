"""A user at a terminal, with the digits sample."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
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
